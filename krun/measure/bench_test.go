package measure

import (
	"crypto/sha512"
	"testing"
	"time"
)

// BenchmarkLaunch measures a 32 MiB kernel; the ratio to BenchmarkSHA384, one
// pass over the same bytes, is what a release promises to be under 1.2.
func BenchmarkLaunch(b *testing.B) {
	in := benchInputs()
	b.SetBytes(int64(len(in.Kernel)))
	for b.Loop() {
		l, err := Prepare(in)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Digest(Libkrun116, Shape{4, 2048}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSHA384(b *testing.B) {
	in := benchInputs()
	b.SetBytes(int64(len(in.Kernel)))
	for b.Loop() {
		_ = sha512.Sum384(in.Kernel)
	}
}

func BenchmarkRegions(b *testing.B) {
	in := benchInputs()
	b.SetBytes(int64(len(in.Kernel)))
	for b.Loop() {
		if _, err := Launch(Libkrun116, in, Shape{4, 2048}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchInputs() Inputs {
	in := testInputs()
	in.Kernel, in.Initrd = noise(4, 32<<20), in.Initrd[:4096]
	return in
}

// BenchmarkAgainstFloor alternates the two, so that other load on the machine
// hits both, and reports the ratio of their best times: the promise is 1.2.
func BenchmarkAgainstFloor(b *testing.B) {
	in := benchInputs()
	best := [2]time.Duration{time.Hour, time.Hour}
	for b.Loop() {
		for i, work := range []func(){
			func() { _ = sha512.Sum384(in.Kernel) },
			func() {
				l, err := Prepare(in)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := l.Digest(Libkrun116, Shape{4, 2048}); err != nil {
					b.Fatal(err)
				}
			},
		} {
			start := time.Now()
			work()
			best[i] = min(best[i], time.Since(start))
		}
	}
	b.ReportMetric(float64(best[1])/float64(best[0]), "x-floor")
}
