package guest

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestClockIsCompared with each time that the server tells: a clock that is off
// is set, one that goes astray afterwards is told of, and one that cannot be set
// right ends the boot.
func TestClockIsCompared(t *testing.T) {
	server := time.Date(2026, 11, 30, 21, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		off   []time.Duration // of the host's clock at each comparison
		stuck bool            // setting it has no effect
		fails bool            // or is refused
		sets  int
		told  string
		wrong bool
	}{
		"right":          {off: []time.Duration{0, time.Second, -9 * time.Second}},
		"behind":         {off: []time.Duration{-10 * time.Second}, sets: 1},
		"decades ahead":  {off: []time.Duration{12 * 365 * 24 * time.Hour, 0}, sets: 1},
		"astray later":   {off: []time.Duration{0, -3 * time.Hour}, sets: 1, told: "astray by -3h0m0s"},
		"astray again":   {off: []time.Duration{time.Hour, time.Hour}, sets: 2, told: "astray by 1h0m0s"},
		"cannot be set":  {off: []time.Duration{time.Hour}, fails: true, sets: 1, wrong: true},
		"does not stick": {off: []time.Duration{time.Hour}, stuck: true, sets: 1, wrong: true},
	} {
		var now time.Time
		var said strings.Builder
		sets := 0
		k := &clock{now: func() time.Time { return now }, say: func(s string) { said.WriteString(s) }}
		k.set = func(to time.Time) error {
			sets++
			if c.fails {
				return errors.New("operation not permitted")
			}
			if !c.stuck {
				now = to
			}
			return nil
		}
		for _, off := range c.off {
			now = server.Add(off)
			k.compare(server)
		}
		if sets != c.sets || (k.check() != nil) != c.wrong {
			t.Errorf("%s: set %d times, expected %d; %v", name, sets, c.sets, k.check())
		}
		if !strings.Contains(said.String(), c.told) || c.told == "" && said.Len() > 0 {
			t.Errorf("%s: said %q, expected %q", name, said.String(), c.told)
		}
	}
	if err := (*clock)(nil).check(); err != nil {
		t.Error(err)
	}
}
