package snp

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// BenchmarkSNPCached is verification and appraisal, the chain known.
func BenchmarkSNPCached(b *testing.B) { benchSNP(b, false) }

// BenchmarkSNPCold checks the chain each time.
func BenchmarkSNPCold(b *testing.B) { benchSNP(b, true) }

func benchSNP(b *testing.B, cold bool) {
	key, err := rsa.GenerateKey(rand.Reader, 4096) // as AMD's are
	if err != nil {
		b.Fatal(err)
	}
	v, c := vendorOf(verifiertest.NewAMDOf(b, false, key, key, key)), verifiertest.NewChip(b, false)
	s := v.verifier(b, Options{})
	ev := kbs.Evidence{TEE: kbs.SNP, Report: v.Report(b, c, func(r []byte) {
		r[0x0b], r[0x40] = r[0x0b]|2, verifier.PlatformAliasCheck|verifier.PlatformIOMMUWriteSafe
	}), Certificates: verifiertest.CertTable(abi.VcekGUID, v.VEK(b, c, verifiertest.VEKOptions{}))}
	ref := kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}, SNP: &kbs.SNPRules{
		RequireAliasCheck: true, RequireIOMMUWriteSafe: true, RequirePageSwapDisable: true, RequireMitigations: []int{1, 4}, ForbidPlatformSMT: true, ForbidTIO: true,
		Signers: []string{verifier.VCEK}, MinimumTCBs: map[string]*kbs.SNPTCB{"19/01/1": {SNP: 29, Microcode: 222}}, AllowAdvisories: []string{"AMD-SB-1"}}}
	want := verifier.Expectation{ReportData: kbs.ReportData{0xda}, At: verifiertest.Time, Advisories: verifiertest.Advisories(b)}
	verifiertest.Against(b, verifiertest.Floor(b, elliptic.P384(), 1), func() {
		if cold {
			s.cache = chain.Cache[VEK]{}
		}
		claims, err := s.Verify(context.Background(), ev, verifiertest.Time)
		if err != nil || !verifier.Appraise(claims, ref, want).OK() {
			b.Fatal(err)
		}
	})
}
