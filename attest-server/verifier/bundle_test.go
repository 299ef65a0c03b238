package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestBundleContents: Endorsements in whatever form files bring them.
func TestBundleContents(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	vcek, ask, ark := v.vek(t, c, vekOptions{}), v.line.ASK.Raw, v.line.ARK.Raw
	crl := v.crl(t, v.line.ARK, v.ark, testTime.AddDate(0, 1, 0)).Raw
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
		{"certificate table", certTable(abi.VcekGUID, vcek), 1, 0, true},
		{"certificate table of a page", append(certTable(abi.VcekGUID, vcek), make([]byte, 4096)...), 1, 0, true},
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
		s := v.verifier(t, SNPOptions{Endorsements: b})
		_, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: v.report(t, c, nil)}, testTime)
		if (err == nil) != tt.vcek {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestBundleImpostors: a directory may hold any number of certificates that
// say of themselves what the right one says. They neither pass nor stand in
// its way, whatever their order.
func TestBundleImpostors(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	other, fake := newVendor(t, false, 3, 3, 3), newVendor(t, false, 3, 1, 2)
	good := v.vek(t, c, vekOptions{})
	impostors := [][]byte{other.vek(t, c, vekOptions{}), other.vek(t, rekeyed(t, c), vekOptions{}), v.vek(t, rekeyed(t, c), vekOptions{})}
	ev := kbs.Evidence{TEE: kbs.SNP, Report: v.report(t, c, nil)}
	verifyWith := func(files ...[]byte) string {
		b := &Bundle{}
		for _, f := range files {
			b.Add(f)
		}
		_, err := v.verifier(t, SNPOptions{Endorsements: wrapped{b}}).Verify(context.Background(), ev, testTime)
		return ruleOf(err)
	}
	for i := range len(impostors) + 1 {
		if rule := verifyWith(slices.Insert(slices.Clone(impostors), i, good)...); rule != "" {
			t.Errorf("the right one at place %d: refused by %s", i, rule)
		}
	}
	if rule := verifyWith(good, good, good, fake.line.ARK.Raw, fake.line.ASK.Raw); rule != "" {
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
	crls.Add(fake.crl(t, fake.line.ARK, fake.ark, testTime.AddDate(0, 1, 0)).Raw)
	if _, err := NewSNP(SNPOptions{Roots: []ProductLine{v.line}, CRLs: crls.CRLs()}); err == nil {
		t.Error("a CRL with the ARK's name and another's signature is let pass")
	}
}

// TestLoadBundleHostile: a directory of any content is read within bounds.
func TestLoadBundleHostile(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("sub"), 0o700),
		os.WriteFile(at("sub/vcek.crt"), v.vek(t, c, vekOptions{}), 0o600),
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
	s := v.verifier(t, SNPOptions{Endorsements: b, CRLs: b.CRLs()})
	if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: v.report(t, c, nil)}, testTime); err != nil {
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

// TestExtendedReport: a report with the host's certificate table behind it.
func TestExtendedReport(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	raw, table := v.report(t, c, nil), certTable(abi.VcekGUID, v.vek(t, c, vekOptions{}))
	x, err := x509.ParseCertificate(v.vek(t, c, vekOptions{}))
	if err != nil || x.Subject.CommonName != "SEV-VCEK" {
		t.Fatal(err)
	}
	s := v.verifier(t, SNPOptions{})
	for _, tt := range []struct {
		name, rule string
		content    []byte
	}{
		{"with a table", "", slices.Concat(raw, table)},
		{"with a table of pages", "", slices.Concat(raw, table, make([]byte, 3*4096-len(table)))},
		{"with an empty table", "endorsement", slices.Concat(raw, make([]byte, 4096))},
		{"with a table cut short", "certificate_table", slices.Concat(raw, table[:len(table)-1])},
		{"with half an entry", "certificate_table", slices.Concat(raw, table[:20])},
		{"with one byte more", "certificate_table", slices.Concat(raw, []byte{0})},
		{"with 65 KiB behind it", "evidence_format", slices.Concat(raw, make([]byte, maxCertTableSize+1))},
		{"changed", "signature", slices.Concat(raw[:0x90], []byte{raw[0x90] ^ 1}, raw[0x91:], table)},
		{"twice", "certificate_table", slices.Concat(raw, raw)},
	} {
		p, err := ParseEvidence(tt.content)
		if err == nil {
			_, err = p.Verify(context.Background(), s, testTime)
		}
		if ruleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
			t.Errorf("%s: got %v, expected rule %q", tt.name, err, tt.rule)
		}
	}
}
