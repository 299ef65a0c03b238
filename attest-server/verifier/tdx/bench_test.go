package tdx

import (
	"context"
	"crypto/elliptic"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// BenchmarkTDXCached is verification and appraisal, chain and collateral known.
func BenchmarkTDXCached(b *testing.B) { benchTDX(b, false) }

// BenchmarkTDXCold checks PCK chain and collateral each time.
func BenchmarkTDXCold(b *testing.B) { benchTDX(b, true) }

func benchTDX(b *testing.B, cold bool) {
	n := newIntel(b)
	v, err := New(Options{Root: n.Root, Collateral: oneCollateral{n.collateral(b)}})
	if err != nil {
		b.Fatal(err)
	}
	ev := kbs.Evidence{TEE: kbs.TDX, Report: n.Quote(b, verifiertest.Body([]byte{0xda}))}
	ref := kbs.ReferenceValues{TEE: kbs.TDX, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}, TDX: &kbs.TDXRules{RTMRs: verifiertest.RTMRs()}}
	want := verifier.Expectation{ReportData: kbs.ReportData{0xda}, At: verifiertest.Time, Advisories: verifiertest.Advisories(b)}
	verifiertest.Against(b, verifiertest.Floor(b, elliptic.P256(), 2), func() {
		if cold {
			v.chains = chain.Cache[pckChain]{}
			clear(v.verified)
		}
		claims, err := v.Verify(context.Background(), ev, verifiertest.Time)
		if err != nil || !verifier.Appraise(claims, ref, want).OK() {
			b.Fatal(err)
		}
	})
}
