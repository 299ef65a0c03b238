package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// TestClockSetBackBeginsNoDay: who can set the clock back, and on again, gets
// no second helping of a day's releases.
func TestClockSetBackBeginsNoDay(t *testing.T) {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	limits := &kbs.ReleaseLimits{PerDay: 2}
	c := counters{day: noon.Unix() / 86400, onDay: 2}
	for _, hours := range []int{0, -13, -240, 0, 11} {
		if err := c.allow(limits, noon.Add(time.Duration(hours)*time.Hour), false); !errors.Is(err, ErrLimit) || c.onDay != 2 {
			t.Errorf("%d h on: %v, %d on the day", hours, err, c.onDay)
		}
	}
	if err := c.allow(limits, noon.Add(12*time.Hour), false); err != nil || c.onDay != 0 {
		t.Errorf("the next day: %v, %d on the day", err, c.onDay)
	}
}

// TestClockThatRanAhead: one release while the clock was a year ahead uses up the
// days until then; the owner reads which day is counted, and after a reset, and
// only then, today has its own share. What is as it should be stays.
func TestClockThatRanAhead(t *testing.T) {
	s, _, c := readyStore(t)
	right := c.now
	for i, id := range []string{"ahead", "fine"} {
		req := registration(id, byte(i+1))
		req.Release = &kbs.ReleaseLimits{PerDay: 2}
		mustRegister(t, s, req, "k")
	}
	n := 0
	release := func(id string) error {
		n++
		w, err := s.Workload(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		number := fmt.Sprint("n", n)
		if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: number, WorkloadID: id, At: c.now, Granted: true}, true); err != nil {
			t.Fatal(err)
		}
		_, err = s.Release(t.Context(), id, w.Digest, Guest{Session: number})
		return err
	}
	must := func(id string, want bool) {
		t.Helper()
		if err := release(id); (err == nil) != want {
			t.Errorf("release of %s at %s: %v", id, c.now.Format(time.DateOnly), err)
		}
	}
	must("fine", true)
	must("fine", true)
	c.now = right.AddDate(1, 0, 0)
	must("ahead", true)
	c.now = right
	must("ahead", true)
	must("ahead", false)
	c.now = right.AddDate(0, 0, 30)
	w, err := s.Workload(t.Context(), "ahead")
	if err != nil {
		t.Fatal(err)
	}
	err = w.CheckLimits(c.now)
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), right.AddDate(1, 0, 0).UTC().Format(time.DateOnly)) || !strings.Contains(hint.Of(err), "limits reset") {
		t.Errorf("in 30 days: %v, hint %q", err, hint.Of(err))
	}
	c.now = right
	if ids, err := s.ResetLimits(t.Context(), "local"); err != nil || !slices.Equal(ids, []string{"ahead"}) {
		t.Fatalf("reset of %v, %v", ids, err)
	}
	must("ahead", true)
	must("ahead", true)
	must("ahead", false)
	must("fine", false)
	if ids, err := s.ResetLimits(t.Context(), "local"); err != nil || len(ids) != 0 {
		t.Errorf("reset again of %v, %v", ids, err)
	}
	page, err := s.AuditPage(t.Context(), "", 0, 100)
	if err != nil || !slices.ContainsFunc(page.Entries, func(e AuditEntry) bool { return e.Action == "limits.reset" && e.Object == "ahead" }) {
		t.Errorf("the reset is not audited: %v", err)
	}
}
