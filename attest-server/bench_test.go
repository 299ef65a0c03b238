package attestserver

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
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

// BenchmarkSecrets is what a guest pays for secrets in a session that it has
// already: one, and a hundred, each of 256 bytes.
func BenchmarkSecrets(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newRig(b, func(c *Config) { c.MaxSessions = 1 << 24 })
			r.register("w1", 1)
			owner, names := r.adminClient(r.token(store.Admin)), make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("default/secret/s%d", i)
				r.resource(&owner, names[i], "w1", strings.Repeat("x", 256))
			}
			c, req := r.guest("w1", 1)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				s, err := c.Attest(b.Context(), req)
				if err != nil {
					b.Fatal(err)
				}
				if k, err := s.DiskKey(b.Context()); err != nil || k.Len() == 0 {
					b.Fatal(err)
				}
				b.StartTimer()
				if got, err := s.Secrets(b.Context(), names); err != nil || len(got) != n {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}
