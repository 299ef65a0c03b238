package endorsements

import (
	"bytes"
	"context"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestBundleContents: Endorsements in whatever form files bring them.
func TestBundleContents(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	vcek, ask, ark := v.VEK(t, c, verifiertest.VEKOptions{}), v.Line.ASK.Raw, v.Line.ARK.Raw
	crl := v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0)).Raw
	vcekPEM, chainPEM := pemOf("CERTIFICATE", vcek), slices.Concat(pemOf("CERTIFICATE", ask), pemOf("CERTIFICATE", ark))
	for _, tt := range []struct {
		name    string
		content []byte
		n, crls int
		vcek    bool
	}{
		{"DER", vcek, 1, 0, true},
		{"PEM", vcekPEM, 1, 0, true},
		{"DER and more DER", slices.Concat(vcek, ask, ark, crl), 4, 1, true},
		{"DER behind DER", slices.Concat(ask, ark, vcek), 3, 0, true},
		{"PEM behind DER", slices.Concat(vcek, chainPEM), 3, 0, true},
		{"DER behind PEM", slices.Concat(chainPEM, vcek), 3, 0, true},
		{"DER between PEM", slices.Concat(vcekPEM, crl, []byte("\n"), chainPEM), 4, 1, true},
		{"PEM with CRLF and text", []byte("0 is where the text begins\r\n" + strings.ReplaceAll(string(vcekPEM), "\n", "\r\n") + "\r\n# end"), 1, 0, true},
		{"PEM cut short behind a good one", append(bytes.Clone(vcekPEM), chainPEM[:100]...), 1, 0, true},
		{"CRL in PEM", pemOf("X509 CRL", crl), 1, 1, false},
		{"a key in PEM", pemOf("PRIVATE KEY", []byte("secret")), 0, 0, false},
		{"certificate table", verifiertest.CertTable(abi.VcekGUID, vcek), 1, 0, true},
		{"certificate table of a page", append(verifiertest.CertTable(abi.VcekGUID, vcek), make([]byte, 4096)...), 1, 0, true},
		{"DER cut short", vcek[:len(vcek)-1], 0, 0, false},
		{"zeros", make([]byte, 100), 0, 0, false},
		{"empty", nil, 0, 0, false},
		{"JSON", []byte(`{"a":1}`), 0, 0, false},
		{"text", []byte("hello"), 0, 0, false},
	} {
		b := &Bundle{}
		if n := b.Add(tt.content); n != tt.n || len(b.CRLs()) != tt.crls || (len(b.veks) > 0) != tt.vcek {
			t.Errorf("%s: %d endorsements, %d CRLs, %d VCEKs; expected %d, %d and %v", tt.name, n, len(b.CRLs()), len(b.veks), tt.n, tt.crls, tt.vcek)
		}
		s := v.Verifier(t, snp.Options{Endorsements: b})
		_, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil)}, verifiertest.Time)
		if (err == nil) != tt.vcek {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestBundleImpostors: a directory may hold any number of certificates that
// say of themselves what the right one says. They neither pass nor stand in
// its way, whatever their order.
func TestBundleImpostors(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	other, fake := vendortest.NewVendor(t, false, 3, 3, 3), vendortest.NewVendor(t, false, 3, 1, 2)
	good := v.VEK(t, c, verifiertest.VEKOptions{})
	impostors := [][]byte{other.VEK(t, c, verifiertest.VEKOptions{}), other.VEK(t, c.Rekeyed(t), verifiertest.VEKOptions{}), v.VEK(t, c.Rekeyed(t), verifiertest.VEKOptions{})}
	ev := kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil)}
	verifyWith := func(files ...[]byte) string {
		b := &Bundle{}
		for _, f := range files {
			b.Add(f)
		}
		_, err := v.Verifier(t, snp.Options{Endorsements: wrapped{b}}).Verify(context.Background(), ev, verifiertest.Time)
		return verifier.RuleOf(err)
	}
	for i := range len(impostors) + 1 {
		if rule := verifyWith(slices.Insert(slices.Clone(impostors), i, good)...); rule != "" {
			t.Errorf("the right one at place %d: refused by %s", i, rule)
		}
	}
	if rule := verifyWith(good, good, good, fake.Line.ARK.Raw, fake.Line.ASK.Raw); rule != "" {
		t.Errorf("three times the same, and another root: refused by %s", rule)
	}
	if rule := verifyWith(impostors...); rule != "signature" {
		t.Errorf("impostors alone: refused by %q, expected signature", rule)
	}
	if rule := verifyWith(impostors[:2]...); rule != "certificate_chain" {
		t.Errorf("look-alikes alone: refused by %q, expected certificate_chain", rule)
	}
	many := slices.Repeat(impostors, 1000)
	if rule := verifyWith(append(many, good)...); rule != "" {
		t.Errorf("behind 3000 impostors: refused by %s", rule)
	}
	crls := &Bundle{}
	crls.Add(fake.CRL(t, fake.Line.ARK, fake.ARKKey, verifiertest.Time.AddDate(0, 1, 0)).Raw)
	if _, err := snp.New(snp.Options{Roots: []snp.ProductLine{v.Line}, CRLs: crls.CRLs()}); err == nil {
		t.Error("a CRL with the ARK's name and another's signature is let pass")
	}
}

// TestLoadBundleHostile: a directory of any content is read within bounds.
func TestLoadBundleHostile(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("sub"), 0o700),
		os.WriteFile(at("sub/vcek.crt"), v.VEK(t, c, verifiertest.VEKOptions{}), 0o600),
		os.WriteFile(at("README"), []byte("0. unrelated"), 0o600),
		os.WriteFile(at("empty"), nil, 0o600),
		os.WriteFile(at("huge.pem"), nil, 0o600),
		os.Truncate(at("huge.pem"), 64<<30),
		os.Symlink("nowhere", at("dangling")),
		os.Symlink("loop2", at("loop1")),
		os.Symlink("loop1", at("loop2")),
		os.Symlink(".", at("self")),
		os.Symlink("sub/vcek.crt", at("link.der")),
		os.Symlink("/dev/zero", at("zero")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := LoadBundle(os.DirFS(dir))
	if err != nil || len(b.veks) != 2 {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, name := range []string{"README", "empty", "huge.pem", "self", "zero", "loop1", "loop2"} {
		if !slices.Contains(b.Skipped(), name) {
			t.Errorf("%s is not among those passed over, %v", name, b.Skipped())
		}
	}
	s := v.Verifier(t, snp.Options{Endorsements: b, CRLs: b.CRLs()})
	if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil)}, verifiertest.Time); err != nil {
		t.Error(err)
	}
	full := t.TempDir()
	for i := range maxBundleFiles + 1 {
		if err := os.WriteFile(filepath.Join(full, strings.Repeat("x", i%200+1)+string(rune('a'+i/200))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadBundle(os.DirFS(full)); err == nil {
		t.Error("a directory with too many files is read")
	}
}
