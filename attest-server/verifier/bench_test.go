package verifier

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"slices"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// floor is a bare signature check: what no verification can be faster than.
func floor(b *testing.B, curve elliptic.Curve, checks int) func() {
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

// against runs f and its floor in turn, so that other load on the machine
// falls on both alike, and reports the ratio of their medians.
func against(b *testing.B, floor, f func()) {
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
	n := len(fs) / 2
	b.ReportMetric(float64(fs[n])/float64(floors[n]), "x-floor")
	b.ReportMetric(float64(fs[n].Nanoseconds()), "ns/verify")
}

// BenchmarkSNPCached is verification and appraisal, the chain known.
func BenchmarkSNPCached(b *testing.B) { benchSNP(b, false) }

// BenchmarkSNPCold checks the chain each time.
func BenchmarkSNPCold(b *testing.B) { benchSNP(b, true) }

func benchSNP(b *testing.B, cold bool) {
	key, err := rsa.GenerateKey(rand.Reader, 4096) // as AMD's are
	if err != nil {
		b.Fatal(err)
	}
	v, c := newVendorOf(b, false, key, key, key), newChip(b, false)
	s := v.verifier(b, SNPOptions{})
	ev := kbs.Evidence{TEE: kbs.SNP, Report: v.report(b, c, nil), Certificates: certTable(abi.VcekGUID, v.vek(b, c, vekOptions{}))}
	ref := kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}}
	want := Expectation{ReportData: kbs.ReportData{0xda}, At: testTime}
	against(b, floor(b, elliptic.P384(), 1), func() {
		if cold {
			s.cache.m = nil
		}
		claims, err := s.Verify(context.Background(), ev, testTime)
		if err != nil || !Appraise(claims, ref, want).OK() {
			b.Fatal(err)
		}
	})
}

// BenchmarkTDXCached is verification and appraisal, chain and collateral known.
func BenchmarkTDXCached(b *testing.B) { benchTDX(b, false) }

// BenchmarkTDXCold checks PCK chain and collateral each time.
func BenchmarkTDXCold(b *testing.B) { benchTDX(b, true) }

func benchTDX(b *testing.B, cold bool) {
	n := newIntel(b)
	v, err := NewTDX(TDXOptions{Root: n.Root, Collateral: oneCollateral{n.collateral(b)}})
	if err != nil {
		b.Fatal(err)
	}
	ev := kbs.Evidence{TEE: kbs.TDX, Report: n.Quote(b, strictBody(verifiertest.Body([]byte{0xda})))}
	ref, want := strictTD()
	against(b, floor(b, elliptic.P256(), 2), func() {
		if cold {
			v.chains.m = nil
			clear(v.verified)
		}
		claims, err := v.Verify(context.Background(), ev, testTime)
		if err != nil || !Appraise(claims, ref, want).OK() {
			b.Fatal(err)
		}
	})
}
