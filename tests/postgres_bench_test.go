package tests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// share is the part of one processor that each server gets in the bench, so
// that one machine can stand for several: database and guests have the rest.
const share = 0.15

// BenchmarkTwoServers compares full handshakes a second of two servers with
// those of one, on one PostgreSQL database, in turn. Run it with -benchtime 1x.
func BenchmarkTwoServers(b *testing.B) {
	endToEnd(b)
	p := newPair(b)
	limited := slow(b, p.a) && slow(b, p.b)
	r := p.registration("bench")
	p.register(p.a.url, r)
	both := []*member{p.a, p.b}
	p.rate(r, both, time.Second) // chains are known now
	var ratios, one, two []float64
	for range 3 {
		x := (p.rate(r, both[:1], 3*time.Second) + p.rate(r, both[1:], 3*time.Second)) / 2
		y := p.rate(r, both, 3*time.Second)
		ratios, one, two = append(ratios, y/x), append(one, x), append(two, y)
	}
	for _, v := range [][]float64{ratios, one, two} {
		slices.Sort(v)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(one[1], "handshakes/s-of-one")
	b.ReportMetric(two[1], "handshakes/s-of-two")
	b.ReportMetric(ratios[1], "x-one")
	if !limited {
		b.Log("no cgroup to limit the servers' processor with: guests, database and servers share all there is, and the ratio tells little")
	}
	b.Logf("each server has %.0f%% of a processor (limited: %v); ratios %.2f", 100*share, limited, ratios)
}

// slow limits a server's processor time, if this process may.
func slow(b *testing.B, m *member) bool {
	const period = 10000 // µs
	dir := filepath.Join("/sys/fs/cgroup/cpu", fmt.Sprintf("ccrun-bench-%d", m.process.Process.Pid))
	settings := map[string]string{"cpu.cfs_period_us": fmt.Sprint(period), "cpu.cfs_quota_us": fmt.Sprint(int(share * period))}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil { // version 2
		dir = strings.Replace(dir, "/cpu/", "/", 1)
		settings = map[string]string{"cpu.max": fmt.Sprintf("%d %d", int(share*period), period)}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return false
	}
	b.Cleanup(func() {
		m.kill()
		eventually(func() bool { return os.Remove(dir) == nil })
	})
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			return false
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(m.process.Process.Pid)), 0o644) == nil
}

// rate is how many handshakes a second 16 guests get out of the servers.
func (p *pair) rate(r kbs.RegisterRequest, servers []*member, d time.Duration) float64 {
	var done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 16 {
		wg.Go(func() {
			c := kbs.Client{URLs: []string{servers[i%len(servers)].url}, PinnedKeys: []string{p.pin}, Timeout: 30 * time.Second}
			for time.Since(start) < d {
				k, err := c.Release(p.Context(), kbs.ReleaseRequest{
					WorkloadID: r.Registration.WorkloadID, TEE: kbs.Sample, IdentityDigest: r.Registration.IdentityDigest, FooterDigest: r.Registration.FooterDigest,
					Attest: func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) { return p.evidence(r, rd) },
				})
				if err != nil || string(k.Reveal()) != string(r.DiskKey) {
					p.Errorf("Release: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if done.Load() == 0 {
		p.Fatalf("no handshake; /readyz answers %d", func() int { s, _ := get(servers[0].url + "/readyz"); return s }())
	}
	return float64(done.Load()) / time.Since(start).Seconds()
}
