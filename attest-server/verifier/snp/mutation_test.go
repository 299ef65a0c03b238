package snp

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestEveryByteCertTable flips every byte of a host's certificate table. With
// no other source of certificates all are refused.
func TestEveryByteCertTable(t *testing.T) {
	v, c := newVendor(t, false), verifiertest.NewChip(t, false)
	s := v.verifier(t, Options{})
	report, table := v.Report(t, c, nil), verifiertest.CertTable(abi.VcekGUID, v.VEK(t, c, verifiertest.VEKOptions{}))
	judge := func(b []byte) string {
		_, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: b}, verifiertest.Time)
		return verifier.RuleOf(err)
	}
	if rule := judge(table); rule != "" {
		t.Fatalf("unchanged: refused by %s", rule)
	}
	for i := range table {
		b := bytes.Clone(table)
		b[i] ^= 1 << (i % 8)
		if rule := judge(b); !slices.Contains([]string{"certificate_table", "certificate_chain", "endorsement", "certificate_validity", "signature"}, rule) {
			t.Errorf("byte %#x: refused by %q", i, rule)
		}
	}
	for size := range len(table) {
		if size%8 == 0 && judge(table[:size]) == "" {
			t.Errorf("the first %d bytes are accepted", size)
		}
	}
}

// TestEveryExtensionVEK changes every extension of a VCEK and a VLEK, and the
// other properties that count, each signed by the right key.
func TestEveryExtensionVEK(t *testing.T) {
	arc := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}
	edit := func(oid []int, value func(was []byte) []byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for i, e := range c.ExtraExtensions {
				if e.Id.Equal(append(arc[:8:8], oid...)) {
					c.ExtraExtensions[i].Value = value(bytes.Clone(e.Value))
				}
			}
		}
	}
	last := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	more := func(b []byte) []byte { return append(b, 0) }
	huge := func([]byte) []byte { return []byte{2, 2, 1, 0} }
	negative := func([]byte) []byte { return []byte{2, 1, 0xff} }
	text := func([]byte) []byte { return []byte("x") }
	gone := func(oid []int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = slices.DeleteFunc(c.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(append(arc[:8:8], oid...)) })
		}
	}
	total := 0
	for _, fmc := range []bool{false, true} {
		for _, vlek := range []bool{false, true} {
			v, c := newVendor(t, fmc), verifiertest.NewChip(t, fmc)
			s := v.verifier(t, Options{})
			guid, report := abi.VcekGUID, v.Report(t, c, nil)
			if vlek {
				guid, report = abi.VlekGUID, v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2 })
			}
			judge := func(e func(*x509.Certificate)) string {
				total++
				table := verifiertest.CertTable(guid, v.VEK(t, c, verifiertest.VEKOptions{VLEK: vlek, Edit: e}))
				_, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: table}, verifiertest.Time)
				if err != nil && verifier.RuleOf(err) == "" {
					return err.Error()
				}
				return verifier.RuleOf(err)
			}
			check := func(name, want string, e func(*x509.Certificate)) {
				if got := judge(e); got != want {
					t.Errorf("fmc %t, VLEK %t, %s: refused by %q, expected %q", fmc, vlek, name, got, want)
				}
			}
			check("unchanged", "", nil)
			components := [][]int{{3, 1}, {3, 2}, {3, 3}, {3, 8}}
			if fmc {
				components = append(components, []int{3, 9})
			}
			for _, oid := range components {
				check("another component", "certificate_tcb", edit(oid, last))
				for _, f := range []func([]byte) []byte{more, huge, negative, text} {
					check("malformed component", "certificate_chain", edit(oid, f))
				}
				if want := "certificate_chain"; oid[1] != 9 {
					check("component missing", want, gone(oid))
				} else {
					check("FMC missing", "certificate_tcb", gone(oid))
				}
			}
			check("reserved component in use", "certificate_chain", edit([]int{3, 5}, last))
			check("unknown component", "certificate_chain", addExtension(3, 10))
			check("unknown extension", "", addExtension(77))
			check("structure version", "", edit([]int{1}, last))
			check("another product", "certificate_chain", edit([]int{2}, func(b []byte) []byte { b[2] ^= 1; return b }))
			check("product missing", "certificate_chain", gone([]int{2}))
			check("product with more behind it", "certificate_chain", edit([]int{2}, more))
			check("no common name", "certificate_chain", func(c *x509.Certificate) { c.Subject.CommonName = "" })
			check("name in lower case", "certificate_chain", func(c *x509.Certificate) { c.Subject.CommonName = "sev-vcek" })
			if vlek {
				check("a VLEK with a chip", "certificate_chain", func(c *x509.Certificate) {
					c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: append(arc[:8:8], 4), Value: make([]byte, 64)})
				})
				check("another provider", "", edit([]int{5}, last))
				check("provider with more behind it", "certificate_chain", edit([]int{5}, more))
				continue
			}
			check("another chip", "certificate_chip_id", edit([]int{4}, last))
			check("chip missing", "certificate_chain", gone([]int{4}))
			check("chip of 63 bytes", "certificate_chain", edit([]int{4}, func(b []byte) []byte { return b[1:] }))
			check("chip of the other line's size", "certificate_chip_id", edit([]int{4}, func(b []byte) []byte {
				if len(b) == 8 {
					return append(b, make([]byte, 56)...)
				}
				return b[:8]
			}))
			check("chip in DER", "certificate_chain", edit([]int{4}, func(b []byte) []byte { return append([]byte{4, byte(len(b))}, b...) }))
		}
	}
	t.Logf("%d changes to endorsement keys' certificates", total)
}

// TestOtherTEE: a genuine report that says it is of another TEE is not looked at.
func TestOtherTEE(t *testing.T) {
	v, c := newVendor(t, false), verifiertest.NewChip(t, false)
	s := v.verifier(t, Options{})
	ev := kbs.Evidence{Report: v.Report(t, c, nil), Certificates: verifiertest.CertTable(abi.VcekGUID, v.VEK(t, c, verifiertest.VEKOptions{}))}
	for tee, want := range map[kbs.TEE]string{kbs.SNP: "", kbs.TDX: "tee", kbs.Sample: "tee", "": "tee"} {
		ev.TEE = tee
		if _, err := s.Verify(context.Background(), ev, verifiertest.Time); verifier.RuleOf(err) != want {
			t.Errorf("%q: %v", tee, err)
		}
	}
}
