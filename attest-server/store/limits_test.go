package store

import (
	"errors"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
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
