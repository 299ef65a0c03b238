package verifier

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// The floors: a bare signature check, one for SNP and two for TDX.

func BenchmarkFloorP384(b *testing.B) { benchFloor(b, elliptic.P384(), 1) }
func BenchmarkFloorP256(b *testing.B) { benchFloor(b, elliptic.P256(), 2) }

func benchFloor(b *testing.B, curve elliptic.Curve, checks int) {
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
	b.ReportAllocs()
	for b.Loop() {
		for range checks {
			sum := sha512.Sum384(msg)
			if !ecdsa.VerifyASN1(&k.PublicKey, sum[:], sig) {
				b.Fatal("bad signature")
			}
		}
	}
}

// BenchmarkSNPCached is verification and appraisal, the chain known.
func BenchmarkSNPCached(b *testing.B) { benchSNP(b, false) }

// BenchmarkSNPCold checks the chain each time.
func BenchmarkSNPCold(b *testing.B) { benchSNP(b, true) }

func benchSNP(b *testing.B, cold bool) {
	v, c := newVendor(b, false), newChip(b, false)
	s := v.verifier(b, SNPOptions{})
	ev := kbs.Evidence{TEE: kbs.SNP, Report: v.report(b, c, nil), Certificates: certTable(abi.VcekGUID, v.vek(b, c, vekOptions{}))}
	ref := kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}}
	want := Expectation{ReportData: kbs.ReportData{0xda}, At: testTime}
	b.ReportAllocs()
	for b.Loop() {
		if cold {
			s.cache.m = nil
		}
		claims, err := s.Verify(context.Background(), ev, testTime)
		if err != nil || !Appraise(claims, ref, want).OK() {
			b.Fatal(err)
		}
	}
}

// BenchmarkTDXCached is verification with collateral, chain and collateral
// known.
func BenchmarkTDXCached(b *testing.B) { benchTDX(b, false) }

// BenchmarkTDXCold checks PCK chain and collateral each time.
func BenchmarkTDXCold(b *testing.B) { benchTDX(b, true) }

func benchTDX(b *testing.B, cold bool) {
	quote, c, at := tdxFixture(b)
	v, err := NewTDX(TDXOptions{Collateral: oneCollateral{&c}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if cold {
			v.chains.m = nil
			clear(v.verified)
		}
		if _, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, at); err != nil {
			b.Fatal(err)
		}
	}
}
