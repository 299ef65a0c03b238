package snp

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// FuzzSNPReport: no report makes the verifier panic, and none but those that
// the key signed is accepted.
func FuzzSNPReport(f *testing.F) {
	v, c := newVendor(f, false), verifiertest.NewChip(f, false)
	good := v.Report(f, c, nil)
	s := v.verifier(f, Options{Endorsements: only(v.VEK(f, c, verifiertest.VEKOptions{}))})
	f.Add(good)
	verifiertest.Seed(f, "*.report.bin")
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: b}, verifiertest.Time)
		verifiertest.RefusedOnly(t, claims, err)
		if err == nil && !bytes.Equal(b[:0x2a0], good[:0x2a0]) {
			t.Fatal("a report that was never signed is accepted")
		}
	})
}

// FuzzCertTable: no table makes the verifier panic or allocate beyond it.
func FuzzCertTable(f *testing.F) {
	v, c := newVendor(f, false), verifiertest.NewChip(f, false)
	report, der := v.Report(f, c, nil), v.VEK(f, c, verifiertest.VEKOptions{})
	s := v.verifier(f, Options{})
	f.Add(verifiertest.CertTable(abi.VcekGUID, der))
	f.Add(wrapping(der))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: b}, verifiertest.Time)
		verifiertest.RefusedOnly(t, claims, err)
		keys, err := CertTable(b, verifier.VCEK)
		for _, k := range keys {
			if err != nil || !bytes.Contains(b, k) {
				t.Fatal("a certificate that is not in the table")
			}
		}
	})
}
