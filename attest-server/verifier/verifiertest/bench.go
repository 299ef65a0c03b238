package verifiertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Floor is a bare signature check: what no verification can be faster than.
func Floor(b *testing.B, curve elliptic.Curve, checks int) func() {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 0x2a0)
	sum := sha512.Sum384(msg)
	sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		for range checks {
			sum := sha512.Sum384(msg)
			if !ecdsa.VerifyASN1(&k.PublicKey, sum[:], sig) {
				b.Fatal("bad signature")
			}
		}
	}
}

// Against runs f and its floor in turn, in the CPU time of one thread, so that
// other load on the machine falls on neither, and reports the ratio of their
// medians.
func Against(b *testing.B, floor, f func()) {
	var fs, floors []time.Duration
	b.ReportAllocs()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		t0 := threadTime(b)
		floor()
		t1 := threadTime(b)
		f()
		floors, fs = append(floors, t1-t0), append(fs, threadTime(b)-t1)
	}
	slices.Sort(fs)
	slices.Sort(floors)
	n := len(fs) / 2
	b.ReportMetric(float64(fs[n])/float64(floors[n]), "x-floor")
	b.ReportMetric(float64(fs[n].Nanoseconds()), "ns/verify")
}

func threadTime(b *testing.B) time.Duration {
	const thread = 1 // RUSAGE_THREAD of getrusage(2)
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
