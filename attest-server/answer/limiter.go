package answer

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiterTable keeps a limiter for each of those seen lately, in two
// generations of which the older is dropped whole.
type limiterTable[K comparable] struct {
	rate Rate
	max  int

	mu                sync.Mutex
	current, previous map[K]*rate.Limiter
}

func newLimiterTable[K comparable](r Rate, most int) *limiterTable[K] {
	return &limiterTable[K]{rate: r, max: max(2, most), current: map[K]*rate.Limiter{}}
}

// take counts n requests of who now. If that is over its rate they are not
// counted, and wait says when to come again.
func (t *limiterTable[K]) take(who K, now time.Time, n int) (wait time.Duration) {
	if t.rate.PerSecond < 0 {
		return 0
	}
	r := t.limiter(who).ReserveN(now, n)
	if !r.OK() {
		return time.Second // n is more than the burst
	}
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// charge counts n requests also if that is over the rate.
func (t *limiterTable[K]) charge(who K, now time.Time, n int) {
	if t.rate.PerSecond >= 0 {
		t.limiter(who).ReserveN(now, min(n, t.rate.Burst))
	}
}

func (t *limiterTable[K]) limiter(who K) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.current[who]
	if l != nil {
		return l
	}
	if l = t.previous[who]; l == nil {
		l = rate.NewLimiter(rate.Limit(t.rate.PerSecond), t.rate.Burst)
	}
	if len(t.current) >= t.max/2 {
		t.previous, t.current = t.current, map[K]*rate.Limiter{}
	}
	t.current[who] = l
	return l
}
