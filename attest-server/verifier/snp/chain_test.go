package snp

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestSNPChain: one thing wrong with the chain, the certificate or the host's
// table at a time; each is refused, and by the rule that says why.
func TestSNPChain(t *testing.T) {
	v, other := newVendor(t, false), newVendor(t, false, 3, 1, 2)
	c, c2 := verifiertest.NewChip(t, false), verifiertest.NewChip(t, false)
	c2.ID[0]++
	old := *c
	old.TCB.Microcode--
	good := v.VEK(t, c, verifiertest.VEKOptions{})
	next := verifiertest.Time.AddDate(0, 1, 0)
	table := func(der []byte) []byte { return verifiertest.CertTable(abi.VcekGUID, der) }
	lookalike := newVendor(t, false, 3, 3, 3)
	// What the verifier lacks; all others are the Evidence's own fault.
	lacks := []string{"expired", "not yet valid by an hour", "expired by an hour", "CRL expired", "no CRL where required", "no certificate",
		"only a VLEK in the table", "another TCB in the store", "another chip in the store", "look-alike in the store"}
	for _, tt := range []struct {
		name, rule string // no rule: accepted
		table      []byte
		report     []byte
		opts       Options
		at         time.Time
	}{
		{name: "good", table: table(good)},
		{name: "good with CRL", table: table(good), opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, next)}, RequireCRL: true}},
		{name: "look-alike root", rule: "certificate_chain", table: table(lookalike.VEK(t, c, verifiertest.VEKOptions{}))},
		{name: "signed by the ASVK", rule: "certificate_chain", table: table(v.VEK(t, c, verifiertest.VEKOptions{Signer: v.line.ASVK, SignerKey: v.ASVKKey}))},
		{name: "signed by the ARK", rule: "certificate_chain", table: table(v.VEK(t, c, verifiertest.VEKOptions{Signer: v.line.ARK, SignerKey: v.ARKKey}))},
		{name: "certificate of the ASK itself", rule: "certificate_chain", table: table(v.line.ASK.Raw)},
		{name: "garbage for a certificate", rule: "certificate_chain", table: table([]byte("not DER"))},
		{name: "another name", rule: "certificate_chain", table: table(v.VEK(t, c, verifiertest.VEKOptions{Edit: func(x *x509.Certificate) { x.Subject.CommonName = "VCEK" }}))},
		{name: "unknown security version", rule: "certificate_chain", table: table(v.VEK(t, c, verifiertest.VEKOptions{Edit: addExtension(3, 10)}))},
		{name: "no microcode version", rule: "certificate_chain", table: table(v.VEK(t, c, verifiertest.VEKOptions{Edit: setExtension([]int{3, 8}, []int{7})}))},
		{name: "no hardware id", rule: "certificate_chain", table: table(v.VEK(t, c, verifiertest.VEKOptions{Edit: setExtension([]int{4}, []int{7})}))},
		{name: "expired", rule: "certificate_validity", table: table(good), at: verifiertest.Time.AddDate(7, 0, 0)},
		{name: "not yet valid by an hour", rule: "certificate_validity", table: table(good), at: verifiertest.Time.AddDate(-1, 0, 0).Add(-time.Hour)},
		{name: "valid for the last hour", table: table(good), at: verifiertest.Time.AddDate(6, 0, 0).Add(-time.Hour)},
		{name: "expired by an hour", rule: "certificate_validity", table: table(good), at: verifiertest.Time.AddDate(6, 0, 0).Add(time.Hour)},
		{name: "another chip", rule: "certificate_chip_id", table: table(v.VEK(t, c2, verifiertest.VEKOptions{}))},
		{name: "another TCB", rule: "certificate_tcb", table: table(v.VEK(t, &old, verifiertest.VEKOptions{}))},
		{name: "another key of the chip", rule: "signature", table: table(v.VEK(t, c.Rekeyed(t), verifiertest.VEKOptions{}))},
		{name: "VLEK in the VCEK's place", rule: "signer", table: table(v.VEK(t, c, verifiertest.VEKOptions{VLEK: true}))},
		{name: "ASK revoked", rule: "revocation", table: table(good), opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, next, 2)}}},
		{name: "VCEK revoked by the ASK", rule: "revocation", table: table(good), opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ASK, v.ASKKey, next, 9)}}},
		{name: "other serial revoked", table: table(good), opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, next, 3)}}},
		{name: "CRL expired", rule: "revocation", table: table(good), opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, verifiertest.Time.Add(-time.Hour))}}},
		{name: "no CRL where required", rule: "revocation", table: table(good), opts: Options{RequireCRL: true}},
		{name: "CRL of a stranger", table: table(good), opts: Options{CRLs: []*x509.RevocationList{stranger(t)}}},
		{name: "no certificate", rule: "endorsement"},
		{name: "table cut short", rule: "certificate_table", table: table(good)[:40]},
		{name: "entry beyond the table", rule: "certificate_table", table: table(good)[:100]},
		{name: "entry that wraps at 32 bits", rule: "certificate_table", table: wrapping(good)},
		{name: "64 MiB table", rule: "certificate_table", table: make([]byte, 64<<20)},
		{name: "only a VLEK in the table", rule: "endorsement", table: verifiertest.CertTable(abi.VlekGUID, good)},
		{name: "from the store", opts: Options{Endorsements: only(good)}},
		{name: "stale from the host, good in the store", table: table(v.VEK(t, &old, verifiertest.VEKOptions{})), opts: Options{Endorsements: only(good)}},
		{name: "another TCB in the store", rule: "certificate_tcb", opts: Options{Endorsements: only(v.VEK(t, &old, verifiertest.VEKOptions{}))}},
		{name: "another chip in the store", rule: "certificate_chip_id", opts: Options{Endorsements: only(v.VEK(t, c2, verifiertest.VEKOptions{}))}},
		{name: "look-alike in the store", rule: "certificate_chain", opts: Options{Endorsements: only(lookalike.VEK(t, c, verifiertest.VEKOptions{}))}},
		{name: "another key of the chip in the store", rule: "signature", opts: Options{Endorsements: only(v.VEK(t, c.Rekeyed(t), verifiertest.VEKOptions{}))}},
		{name: "revoked, from the store", rule: "revocation", opts: Options{Endorsements: only(good), CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, next, 2)}}},
		{name: "a VLEK's report", report: v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2 }), table: verifiertest.CertTable(abi.VlekGUID, v.VEK(t, c, verifiertest.VEKOptions{VLEK: true}))},
		{name: "a VLEK's report with CRL", report: v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2 }), table: verifiertest.CertTable(abi.VlekGUID, v.VEK(t, c, verifiertest.VEKOptions{VLEK: true})),
			opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, next, 2)}, RequireCRL: true}},
		{name: "ASVK revoked", rule: "revocation", report: v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2 }), table: verifiertest.CertTable(abi.VlekGUID, v.VEK(t, c, verifiertest.VEKOptions{VLEK: true})),
			opts: Options{CRLs: []*x509.RevocationList{v.CRL(t, v.line.ARK, v.ARKKey, next, 3)}}},
		{name: "a VLEK from the store", report: v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2; clear(r[0x1a0:0x1e0]) }), opts: Options{Endorsements: only(v.VEK(t, c, verifiertest.VEKOptions{VLEK: true}))}},
		{name: "a VLEK signed by the ASK", rule: "certificate_chain", report: v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2 }),
			table: verifiertest.CertTable(abi.VlekGUID, v.VEK(t, c, verifiertest.VEKOptions{VLEK: true, Signer: v.line.ASK, SignerKey: v.ASKKey}))},
		{name: "no time", rule: "clock", table: table(good), at: time.Time{}.Add(1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.report == nil {
				tt.report = v.Report(t, c, nil)
			}
			if tt.at.IsZero() {
				tt.at = verifiertest.Time
			}
			if tt.rule == "clock" {
				tt.at = time.Time{}
			}
			s := v.verifier(t, tt.opts)
			ev := kbs.Evidence{TEE: kbs.SNP, Report: tt.report, Certificates: tt.table}
			for _, pass := range []string{"cold", "cached"} {
				claims, err := s.Verify(context.Background(), ev, tt.at)
				if verifier.RuleOf(err) != tt.rule || (err == nil) != (tt.rule == "") || (claims == nil) != (err != nil) {
					t.Fatalf("%s: got %v, expected rule %q", pass, err, tt.rule)
				}
				if want := slices.Contains(lacks, tt.name); verifier.IsLacking(err) != want {
					t.Errorf("%s: lacking is %v, expected %v: %v", pass, !want, want, err)
				}
			}
		})
	}
	if _, err := New(Options{Roots: []ProductLine{v.line}, CRLs: []*x509.RevocationList{other.CRL(t, other.line.ARK, other.ARKKey, next)}}); err == nil {
		t.Error("a CRL with the ARK's name and another signature was dropped in silence")
	}
	mixed := v.line
	mixed.ARK = other.line.ARK
	if _, err := New(Options{Roots: []ProductLine{mixed}}); err == nil {
		t.Error("an ASK that the ARK did not sign was taken as a root")
	}
	if _, err := New(Options{TEE: kbs.Sample}); err == nil {
		t.Error("the sample TEE was given AMD's roots")
	}
}

func stranger(t testing.TB) *x509.RevocationList {
	v := newVendor(t, true, 3, 1, 2)
	return v.CRL(t, v.line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0), 2)
}

// wrapping is a table whose entry's offset and length add up to little in 32
// bits.
func wrapping(der []byte) []byte {
	b := verifiertest.CertTable(abi.VcekGUID, der)
	binary.LittleEndian.PutUint32(b[16:], 0xfffffff0)
	binary.LittleEndian.PutUint32(b[20:], 0x20)
	return b
}

func addExtension(oid ...int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: append([]int{1, 3, 6, 1, 4, 1, 3704, 1}, oid...), Value: []byte{2, 1, 0}})
	}
}

// setExtension renames one KDS extension.
func setExtension(from, to []int) func(*x509.Certificate) {
	arc := []int{1, 3, 6, 1, 4, 1, 3704, 1}
	return func(c *x509.Certificate) {
		for i, e := range c.ExtraExtensions {
			if e.Id.Equal(append(arc[:8:8], from...)) {
				c.ExtraExtensions[i].Id = append(arc[:8:8], to...)
			}
		}
	}
}

// TestSNPReportIdentity: what names chip, TCB, signer and product must agree
// with the certificate, whatever a signed report says.
func TestSNPReportIdentity(t *testing.T) {
	for _, fmc := range []bool{false, true} {
		v, c := newVendor(t, fmc), verifiertest.NewChip(t, fmc)
		s := v.verifier(t, Options{})
		table := verifiertest.CertTable(abi.VcekGUID, v.VEK(t, c, verifiertest.VEKOptions{}))
		for _, tt := range []struct {
			name, rule string
			edit       func(r []byte)
		}{
			{"as is", "", nil},
			{"version 3", "", func(r []byte) { r[0] = 3 }},
			{"version 0", "report_version", func(r []byte) { r[0] = 0 }},
			{"version 7", "report_version", func(r []byte) { r[0] = 7 }},
			{"version 65541", "report_version", func(r []byte) { r[2] = 1 }},
			{"version 2 with CPUID", "evidence_format", func(r []byte) { r[0] = 2 }},
			{"version 1", "report_version", func(r []byte) { r[0] = 1 }},
			{"version 4", "", func(r []byte) { r[0] = 4 }},
			{"version 6", "report_version", func(r []byte) { r[0] = 6 }},
			{"algorithm", "signature_algorithm", func(r []byte) { r[0x34] = 2 }},
			{"not signed", "signer", func(r []byte) { r[0x48] = 7 << 2 }},
			{"reserved signer", "evidence_format", func(r []byte) { r[0x48] = 3 << 2 }},
			{"VLEK", "endorsement", func(r []byte) { r[0x48] = 1 << 2 }},
			{"policy's reserved one", "evidence_format", func(r []byte) { r[0x0a] = 1 }},
			{"chip", "certificate_chip_id", func(r []byte) { r[0x1a0] ^= 1 }},
			{"chip's last byte", "certificate_chip_id", func(r []byte) { r[0x1df] ^= 1 }},
			{"chip masked", "certificate_chip_id", func(r []byte) { clear(r[0x1a0:0x1e0]) }},
			{"bootloader", "certificate_tcb", func(r []byte) { r[0x180+b2i(fmc)]++ }},
			{"microcode", "certificate_tcb", func(r []byte) { r[0x187]++ }},
			{"reserved TCB byte", "evidence_format", func(r []byte) { r[0x184]++ }},
			{"family", "product", func(r []byte) { r[0x188] = 0x17 }},
			{"model", "product", func(r []byte) { r[0x189] = 0x80 }},
			{"version 2 without CPUID", "", func(r []byte) { r[0] = 2; clear(r[0x188:0x18b]) }},
		} {
			raw := v.Report(t, c, tt.edit)
			_, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: raw, Certificates: table}, verifiertest.Time)
			if verifier.RuleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
				t.Errorf("fmc %t, %s: got %v, expected rule %q", fmc, tt.name, err, tt.rule)
			}
		}
	}
}

// TestProductLines: which processors are of which line, by CPUID, among AMD's
// own roots.
func TestProductLines(t *testing.T) {
	lines, err := Roots()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		family, model byte
		line          string // empty: refused
	}{
		{0x19, 0x00, "Milan"}, {0x19, 0x01, "Milan"}, {0x19, 0x0f, "Milan"},
		{0x19, 0x10, "Genoa"}, {0x19, 0x11, "Genoa"}, {0x19, 0x1f, "Genoa"},
		{0x19, 0xa0, "Genoa"}, {0x19, 0xa2, "Genoa"}, {0x19, 0xaf, "Genoa"}, // Bergamo, Siena
		{0x1a, 0x00, "Turin"}, {0x1a, 0x02, "Turin"}, {0x1a, 0x11, "Turin"},
		{0x19, 0x20, ""}, {0x19, 0x9f, ""}, {0x19, 0xb0, ""}, {0x1a, 0x12, ""}, {0x1a, 0xa0, ""}, {0x17, 0x31, ""}, {0x18, 0x00, ""}, {0x1b, 0x00, ""}, {0, 0, ""},
	} {
		var of []string
		for i := range lines {
			if lines[i].includes(tt.family, tt.model) {
				of = append(of, lines[i].Name)
			}
		}
		if got := strings.Join(of, " "); got != tt.line {
			t.Errorf("family %02xh model %02xh: %q, expected %q", tt.family, tt.model, got, tt.line)
		}
	}
	for i := range lines {
		if l := &lines[i]; l.ASK == nil || l.ASVK == nil || l.FMC != (l.Name == "Turin") || l.Check() != nil {
			t.Errorf("%s: ASK %v, ASVK %v, FMC %v, %v", l.Name, l.ASK != nil, l.ASVK != nil, l.FMC, l.Check())
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSNPTruncated: a report of any other size is refused before it is read.
// TestEveryFieldSNP flips its bits.
func TestSNPTruncated(t *testing.T) {
	v, c := newVendor(t, false), verifiertest.NewChip(t, false)
	s := v.verifier(t, Options{})
	raw := v.Report(t, c, nil)
	for size := range raw {
		if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: raw[:size]}, verifiertest.Time); verifier.RuleOf(err) != "evidence_format" {
			t.Errorf("the first %d bytes: %v", size, err)
		}
	}
	for _, size := range []int{0, 1, 0x2a0, 1183, 1185, 64 << 20} {
		m := append(bytes.Clone(raw), make([]byte, 64<<20)...)[:size]
		if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: m}, verifiertest.Time); verifier.RuleOf(err) != "evidence_format" {
			t.Errorf("%d bytes: got %v, expected a refusal by evidence_format", size, err)
		}
	}
}
