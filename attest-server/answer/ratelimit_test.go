package answer

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimiterTableIsBounded(t *testing.T) {
	now := time.Now()
	l := NewLimiter(RateLimits{MaxAddresses: 100}, time.Now, Responder{}, nil)
	for i := range 10000 {
		l.requests.take(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), now, 1)
	}
	if n := len(l.requests.current) + len(l.requests.previous); n > 100 {
		t.Errorf("%d limiters", n)
	}
	none := NewLimiter(RateLimits{PerAddress: Rate{PerSecond: -1}}, time.Now, Responder{}, nil)
	for range 10000 {
		if none.requests.take(netip.Prefix{}, now, 1) > 0 {
			t.Fatal("limited without a limit")
		}
	}
}
