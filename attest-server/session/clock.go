package session

import (
	"sync"
	"time"
)

// monotonic is clock, but never goes back: if clock does, time goes on from where
// it was. Go's own does not, unless whoever configured the server gave it
// another; then a mark that was dropped after a jump forward would make its
// nonce good again after a jump back.
func monotonic(clock func() time.Time) func() time.Time {
	var mu sync.Mutex
	last, behind := clock(), time.Duration(0)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		t := clock().Add(behind)
		if t.Before(last) {
			behind += last.Sub(t)
			t = last
		}
		last = t
		return t
	}
}
