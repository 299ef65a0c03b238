package guest

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// clockTolerance is how far the host's clock may be off before the server's
// replaces it; below, the network's delay is as large.
const clockTolerance = 10 * time.Second

// clock is the VM's, which the host makes tick. It is compared with the
// authenticated server's whenever that tells its time; between and after, it is
// the host's again (docs/threat-model.md).
type clock struct {
	now func() time.Time
	set func(time.Time) error
	// say tells of a clock that went astray after it had been right.
	say  func(string)
	seen bool  // the server's time has been told before
	err  error // the clock could not be set right
}

func newClock(say func(string)) *clock {
	return &clock{now: time.Now, set: setTime, say: say}
}

func setTime(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

// off is how far t is from the clock, without Go's monotonic reading, which
// setting the clock does not change.
func (c *clock) off(t time.Time) time.Duration { return t.Round(0).Sub(c.now().Round(0)) }

// compare takes the server's time where the clock is off by more than the
// tolerance, because the workload checks certificates by it.
func (c *clock) compare(server time.Time) {
	off := c.off(server)
	again := c.seen
	c.seen = true
	if off.Abs() < clockTolerance {
		return
	}
	if again {
		c.say(fmt.Sprintf("the host's clock went astray by %s since the server last told the time: set again", -off.Round(time.Second)))
	}
	c.err = c.set(server)
	if off := c.off(server); c.err == nil && off.Abs() >= clockTolerance {
		c.err = fmt.Errorf("it is %s off after being set", -off.Round(time.Second))
	}
}

// check is the error of a clock that is known to be wrong.
func (c *clock) check() error {
	if c == nil || c.err == nil {
		return nil
	}
	return hint.With(fmt.Errorf("setting the clock to the server's time: %w", c.err), "check the host's clock, and that of the server")
}
