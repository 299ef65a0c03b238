package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// refused records an attestation of authentic Evidence that a rule refused.
func refused(t *testing.T, s *DB, session, workload, rule string) {
	t.Helper()
	err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: session, WorkloadID: workload, At: s.clock(),
		Result: kbs.AttestationResult{TEE: kbs.Sample, Result: kbs.Contraindicated, Rules: []kbs.Rule{{Rule: rule}}}}, true)
	if err != nil {
		t.Fatal(err)
	}
}

// entries counts audit entries by action and object.
func countEntries(t *testing.T, s *DB) map[string]int {
	t.Helper()
	n := map[string]int{}
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error { n[e.Action+" "+e.Object]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRefusalsAreTold: beyond the first of an hour, refusals of a kind are one
// entry when the hour is over, whatever names their guests chose, across a
// restart; each grant has its own.
func TestRefusalsAreTold(t *testing.T) {
	s, at, o := newStore(t)
	c := &clock{start}
	o.Clock = c.Now
	s.Close()
	s, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	mustRegister(t, s, registration("w", 1), "k")
	mustRegister(t, s, registration("other", 2), "k")
	const beyond = 7
	for i := range refusalsAlone + beyond {
		c.now = c.now.Add(time.Second)
		refused(t, s, fmt.Sprint("a", i), "w", "measurement")
		refused(t, s, fmt.Sprint("b", i), fmt.Sprint("chosen", i), "registered")
	}
	refused(t, s, "c", "w", "debug")
	refused(t, s, "d", "other", "measurement")
	grants := refusalsAlone + beyond
	for i := range grants {
		if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: fmt.Sprint("g", i), WorkloadID: "w", At: c.now, Granted: true}, true); err != nil {
			t.Fatal(err)
		}
	}
	got := countEntries(t, s)
	if got["attest.deny w"] != refusalsAlone+1 || got["attest.deny other"] != 1 || got["attest.grant w"] != grants || len(got) != 2+2+1+refusalsAlone {
		t.Fatalf("%d kinds of entries, %v", len(got), got)
	}
	s.Close()
	c.now = c.now.Add(time.Hour)
	if s, err = reopen(t.Context(), at, o); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // those after the first tell nothing again
		mustRegister(t, s, registration(fmt.Sprint("later", i), byte(50+i)), "k")
	}
	var told []AuditEntry
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		if strings.HasSuffix(e.Action, ".more") {
			told = append(told, e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	first, last := start.Add((refusalsAlone+1)*time.Second), start.Add((refusalsAlone+beyond)*time.Second)
	want := fmt.Sprintf("%d more, first %s, last %s: rule ", beyond, first.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339))
	if len(told) != 2 || told[0].Object != unregistered || told[0].Detail != want+"registered" || told[1].Object != "w" || told[1].Detail != want+"measurement" || told[1].Action != "attest.deny.more" {
		t.Errorf("told %+v, expected %s", told, want)
	}
	if n := column(t, s.db.DB, "SELECT count(*) FROM refusals"); n[0] != "0" {
		t.Errorf("%s kinds are left", n[0])
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestResourceIsRefusedOnce: a session that asks for the same again has one
// entry of it.
func TestResourceIsRefusedOnce(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	w, err := s.Workload(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range []string{"one", "two"} {
		for _, tag := range []string{"a", "b", "a", "a"} {
			if _, err := s.ReleaseResource(t.Context(), kbs.ResourceID{Repo: "default", Type: "key", Tag: tag}, "w", w.Digest, session); err == nil {
				t.Fatal("released")
			}
		}
	}
	got := countEntries(t, s)
	if got["resource.refuse default/key/a"] != 2 || got["resource.refuse default/key/b"] != 2 {
		t.Errorf("%v", got)
	}
}
