package store

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// BenchmarkHandshakeWrites is what a guest's handshake writes: the record of
// its attestation and the release. Processor time counts: the rest is the
// disk's flush, which concurrent guests share.
func BenchmarkHandshakeWrites(b *testing.B) {
	s, _, _ := newStore(b)
	reg := registration("w", 1)
	mustRegister(b, s, reg, "key")
	w, err := s.Workload(b.Context(), "w")
	if err != nil {
		b.Fatal(err)
	}
	rules := make([]kbs.Rule, 25) // about as long as an SNP guest's
	for i := range rules {
		rules[i] = kbs.Rule{Rule: fmt.Sprint("rule", i), Expected: strings.Repeat("e", 96), Got: strings.Repeat("g", 96), Pass: true}
	}
	var n atomic.Int64
	begin := cpuTime(b)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			number := fmt.Sprint(n.Add(1))
			err := s.RecordSession(b.Context(), kbs.SessionRecord{Session: number, WorkloadID: "w", At: time.Now(), Granted: true,
				Result: kbs.AttestationResult{TEE: kbs.Sample, Result: kbs.Affirming, Rules: rules}}, true)
			if err == nil {
				_, err = s.Release(b.Context(), "w", w.Digest, Guest{Session: number})
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64((cpuTime(b)-begin).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpuTime is what this process has used of processors.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
