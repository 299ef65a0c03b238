package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// sight records a session of a workload on the machine of that id.
func sight(t *testing.T, s *DB, session, workload, chip string, at int64, granted, authentic bool) {
	t.Helper()
	claims, err := json.Marshal(map[string]any{"snp": map[string]any{"chip_id": chip, "product": "Genoa", "reported_tcb": kbs.SNPTCB{SNP: 27}}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.RecordSession(t.Context(), kbs.SessionRecord{Session: session, WorkloadID: workload, At: time.UnixMilli(at).UTC(), Peer: "192.0.2.7", Granted: granted,
		Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Contraindicated, Claims: claims}}, authentic)
	if err != nil {
		t.Fatal(err)
	}
}

// seen is the fleet in a line a sighting.
func seen(t *testing.T, s *DB, q FleetQuery, limit int) string {
	t.Helper()
	all, err := s.Fleet(t.Context(), q, limit)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, x := range all {
		lines = append(lines, fmt.Sprintf("%.2s %s %d %s %t %t", x.Machine, x.Workload, x.At.UnixMilli(), x.Session, x.Record != nil, x.Known != nil))
	}
	return strings.Join(lines, "\n")
}

// TestFleet: each pair of machine and workload once, the last that was seen of
// it; what was granted stays when the session's record goes; forgeries are
// nothing, and a tenant has its own alone.
func TestFleet(t *testing.T) {
	o := options(t)
	o.SessionRecords = 6
	s, _, _ := newStoreWith(t, o)
	a, b := strings.Repeat("aa", 64), strings.Repeat("bb", 64)
	sight(t, s, "1", "acme.w", a, 2, true, true)
	sight(t, s, "2", "acme.w", a, 3, false, true)
	sight(t, s, "3", "acme.w1", a, 4, true, true)
	sight(t, s, "4", "acme2.w", b, 5, true, true)
	sight(t, s, "5", "acme.w", b, 6, true, false) // forged
	sight(t, s, "6", "acme.w", "", 7, false, true)
	sight(t, s, "7", "acme.w", "", 8, false, true)
	want := " acme.w 8 7 true false\n acme.w 7 6 true false\nbb acme2.w 5 4 true true\naa acme.w1 4 3 true true\naa acme.w 3 2 true true"
	if got := seen(t, s, FleetQuery{}, 10); got != want {
		t.Errorf("the fleet is\n%s\nexpected\n%s", got, want)
	}
	want = " acme.w 8 7 true false\n acme.w 7 6 true false\naa acme.w1 4 3 true false\naa acme.w 3 2 true false"
	if got := seen(t, s, FleetQuery{Tenant: "acme"}, 10); got != want {
		t.Errorf("acme's fleet is\n%s\nexpected\n%s", got, want)
	}
	if got := seen(t, s, FleetQuery{Before: time.UnixMilli(5), BeforeSession: "4"}, 1); got != "aa acme.w1 4 3 true true" {
		t.Errorf("a page of one is %q", got)
	}
	for i := range 6 {
		sight(t, s, fmt.Sprint("x", i), "acme2.w", b, int64(100+i), false, true)
	}
	want = "bb acme2.w 105 x5 true true\naa acme.w1 4 3 false true\naa acme.w 2 1 false true"
	if got := seen(t, s, FleetQuery{}, 10); got != want {
		t.Errorf("with forgotten sessions the fleet is\n%s\nexpected\n%s", got, want)
	}
	if got := seen(t, s, FleetQuery{Tenant: "acme"}, 10); got != "" {
		t.Errorf("acme sees %q", got)
	}
}

// TestApprovalsGiven: one tenant's or all, latest first, and exactly what was
// approved counts.
func TestApprovalsGiven(t *testing.T) {
	o, now := options(t), time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	o.Clock = func() time.Time { return now }
	s, _, _ := newStoreWith(t, o)
	for i, tenant := range []string{"acme", "zeta", "acme"} {
		_ = s.SetTenant(t.Context(), tenant, 10, 10, "x")
		now = now.Add(time.Second)
		a := kbs.Approval{Name: fmt.Sprint("n", i), WorkloadID: "w", RegistrationDigest: kbs.Digest{byte(i + 1)}}
		if err := s.Approve(t.Context(), tenant, a, "token/x"); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Missing(t.Context(), []string{tenant, "other"}, a); err != nil || len(got) != 1 || got[0] != "other" {
			t.Errorf("%s lacks the approvals of %v, %v", a.Name, got, err)
		}
		a.RegistrationDigest[0]++
		if got, err := s.Missing(t.Context(), []string{tenant}, a); err != nil || len(got) != 1 {
			t.Errorf("another registration lacks those of %v, %v", got, err)
		}
	}
	for _, c := range []struct {
		tenant, workload string
		limit            int
		want             string
	}{{"", "", 9, "n2 n1 n0"}, {"acme", "", 9, "n2 n0"}, {"zeta", "w", 9, "n1"}, {"", "other", 9, ""}, {"", "", 1, "n2"}} {
		all, err := s.Given(t.Context(), c.tenant, c.workload, c.limit)
		var names []string
		for _, g := range all {
			if names = append(names, g.Name); g.By != "token/x" || g.At.IsZero() {
				t.Errorf("%+v", g)
			}
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}
