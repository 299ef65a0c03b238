package attestserver

import (
	"fmt"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestSessionList: pages follow one another without a gap or a repetition, and
// show a tenant nothing of another's.
func TestSessionList(t *testing.T) {
	r := newRig(t)
	for i := range 7 {
		record := kbs.SessionRecord{
			Session: fmt.Sprintf("s%d", i), WorkloadID: []string{"acme.shop", "other"}[i%2], At: time.Unix(1000+int64(i)/2, 0).UTC(), Granted: i == 3,
			Result: kbs.AttestationResult{TEE: kbs.Sample, Result: kbs.Contraindicated, Rules: []kbs.Rule{{Rule: "good", Pass: true}, {Rule: "bad"}, {Rule: "worse"}}},
		}
		if err := r.store.RecordSession(t.Context(), record, true); err != nil {
			t.Fatal(err)
		}
	}
	var all []kbs.SessionSummary
	for before := ""; ; {
		page, err := r.admin.Sessions(t.Context(), "", before, 2)
		if err != nil || len(page.Sessions) > 2 {
			t.Fatalf("page before %q: %+v, %v", before, page, err)
		}
		all = append(all, page.Sessions...)
		if before = page.Next; before == "" {
			break
		}
	}
	seen := map[string]bool{}
	for i, s := range all {
		if seen[s.Session] || i > 0 && s.At.After(all[i-1].At) || s.Failed != "bad" || s.TEE != kbs.Sample {
			t.Errorf("line %d: %+v", i, s)
		}
		seen[s.Session] = true
	}
	if len(all) != 7 {
		t.Errorf("%d sessions in all pages, expected 7", len(all))
	}
	one, err := r.admin.Sessions(t.Context(), "other", "", 100)
	if err != nil || len(one.Sessions) != 3 || one.Next != "" {
		t.Errorf("one workload's: %+v, %v, expected 3", one, err)
	}
	for _, bad := range []string{"x", "1", ".s1", "-5.s1", "0.s"} {
		if _, err := r.admin.Sessions(t.Context(), "", bad, 2); err == nil {
			t.Errorf("before %q is taken for a page", bad)
		}
	}
}
