package verifiertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"slices"
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

// Against runs f and its floor in turn, so that other load on the machine
// falls on both alike, and reports the ratio of what nine of ten took longer
// than: those were not interrupted.
func Against(b *testing.B, floor, f func()) {
	var fs, floors []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		t0 := time.Now()
		floor()
		t1 := time.Now()
		f()
		floors, fs = append(floors, t1.Sub(t0)), append(fs, time.Since(t1))
	}
	slices.Sort(fs)
	slices.Sort(floors)
	n := len(fs) / 10
	b.ReportMetric(float64(fs[n])/float64(floors[n]), "x-floor")
	b.ReportMetric(float64(fs[n].Nanoseconds()), "ns/verify")
}
