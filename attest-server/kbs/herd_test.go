package kbs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// busy is an answer with a Retry-After.
type busy time.Duration

func (b busy) Error() string              { return fmt.Sprintf("busy for %s", time.Duration(b)) }
func (b busy) wantedPause() time.Duration { return time.Duration(b) }

// crowd is guests that were switched on together, and when they asked.
type crowd struct {
	mu     sync.Mutex
	tries  []time.Duration
	served []time.Duration
}

// ask has n guests ask as the agent does, until answer gives each nil.
func (c *crowd) ask(n int, answer func(since time.Duration) error) {
	start := time.Now()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			q := inquiry{wait: Forever, final: func(error) bool { return false }, retry: func(error, time.Duration) {}}
			_ = q.ask(context.Background(), []string{"u"}, func(string) error {
				c.mu.Lock()
				defer c.mu.Unlock()
				since := time.Since(start)
				c.tries = append(c.tries, since)
				err := answer(since)
				if err == nil {
					c.served = append(c.served, since)
				}
				return err
			})
		})
	}
	all.Wait()
}

// most is how many of times there are in the busiest second from the given one on.
func most(times []time.Duration, from time.Duration) (n int) {
	slices.Sort(times)
	for i, t := range times {
		if t < from {
			continue
		}
		end, _ := slices.BinarySearch(times, t+time.Second)
		n = max(n, end-i)
	}
	return n
}

// TestNoHerd: 500 guests that were switched on at the same instant, and whose
// server comes later, do not come back in one second; none comes more than a
// minute later than the server.
func TestNoHerd(t *testing.T) {
	for away, atMost := range map[time.Duration]int{
		10 * time.Second: 200, time.Minute: 60, 5 * time.Minute: 40, time.Hour: 40,
	} {
		synctest.Test(t, func(t *testing.T) {
			var c crowd
			c.ask(500, func(since time.Duration) error {
				if since < away {
					return syscall.ECONNREFUSED
				}
				return nil
			})
			last := slices.Max(c.served) - away
			t.Logf("away for %s: at most %d of 500 in a second, the last after %s, %d tries", away, most(c.served, 0), last.Round(time.Second), len(c.tries))
			if n := most(c.served, 0); n > atMost || len(c.served) != 500 || last > time.Minute+time.Second {
				t.Errorf("away for %s: %d in a second, expected at most %d; last after %s", away, n, atMost, last)
			}
		})
	}
}

// TestNoHerdAfterBusy: a server that tells everybody to come again after the same
// time does not get them all at that time.
func TestNoHerdAfterBusy(t *testing.T) {
	for after, atMost := range map[time.Duration]int{time.Second: 500, 10 * time.Second: 150, time.Minute: 40} {
		synctest.Test(t, func(t *testing.T) {
			var c crowd
			c.ask(500, func(since time.Duration) error {
				if since < after/2 {
					return busy(after)
				}
				return nil
			})
			t.Logf("busy for %s: at most %d of 500 in a second, the last after %s", after, most(c.served, 0), slices.Max(c.served).Round(time.Second))
			if n := most(c.served, 0); n > atMost || slices.Min(c.served) < after {
				t.Errorf("busy for %s: %d came in one second, expected at most %d; the first after %s", after, n, atMost, slices.Min(c.served))
			}
		})
	}
}

// TestCrowdAtALimit: a server that serves 20 a second, and sends the others away
// for a second, has served all 500 soon, and has not been asked much more often.
func TestCrowdAtALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 20
		var c crowd
		tokens, last := float64(rate), time.Duration(0)
		c.ask(500, func(since time.Duration) error {
			tokens, last = min(rate, tokens+rate*(since-last).Seconds()), since
			if tokens < 1 {
				return busy(time.Second)
			}
			tokens--
			return nil
		})
		end := slices.Max(c.served)
		t.Logf("all served after %s (%s at least), %d tries, at most %d in a second after the first", end.Round(time.Second), 500/rate*time.Second, len(c.tries), most(c.tries, time.Second))
		if end > 4*500/rate*time.Second || len(c.tries) > 10*500 {
			t.Errorf("served after %s, %d tries", end, len(c.tries))
		}
	})
}
