package attestserver

import (
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
)

// BenchmarkHandshake is auth, attest and key over a new TLS connection each,
// as guests come, with Evidence that costs nothing to verify: what is measured
// is everything else, two durable writes among it.
func BenchmarkHandshake(b *testing.B) {
	r := newRig(b, func(c *Config) { c.MaxSessions = 1 << 24 })
	r.register("w1", 1)
	c, req := r.guest("w1", 1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Release(b.Context(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkAuth is what a flood of the cheapest request costs.
func BenchmarkAuth(b *testing.B) {
	r := newRig(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.server.sessions.Open(session.Native, kbs.SNP, "w1"); err != nil {
			b.Fatal(err)
		}
	}
}
