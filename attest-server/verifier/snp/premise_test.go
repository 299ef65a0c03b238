package snp

import (
	"crypto/x509"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"

	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// The premises of our own code where a library would be at hand: when one of
// these tests fails, that code can go.

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestPremiseCertTablePanics(t *testing.T) {
	table := wrapping(make([]byte, 100))
	if !panics(func() { _ = new(abi.CertTable).Unmarshal(table) }) {
		t.Error("go-sev-guest's CertTable.Unmarshal no longer panics on an entry that wraps: use it")
	}
}

func TestPremiseTurinExtensions(t *testing.T) {
	v, c := newVendor(t, true), verifiertest.NewChip(t, true)
	cert, err := x509.ParseCertificate(v.VEK(t, c, verifiertest.VEKOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kds.VcekCertificateExtensions(cert); err == nil {
		t.Error("go-sev-guest now reads Turin's certificates: use it")
	}
}

// Without this bit x509 would refuse the ARK's CRLs.
func TestPremiseARKSignsCRLs(t *testing.T) {
	lines, err := Roots()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.ARK.KeyUsage&x509.KeyUsageCRLSign == 0 {
			t.Errorf("the ARK of %s may not sign CRLs", l.Name)
		}
	}
}
