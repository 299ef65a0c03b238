package evidence

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestCoCoMutations: every field of the JSON shape reaches the bytes that the
// signature covers.
func TestCoCoMutations(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	s := v.Verifier(t, snp.Options{Endorsements: vendortest.Only(v.VEK(t, c, verifiertest.VEKOptions{}))})
	base := cocoJSON(t, v.Report(t, c, nil), nil)
	check := func(b []byte) string {
		p, err := Parse(b)
		if err == nil {
			_, err = p.Verify(context.Background(), s, verifiertest.Time)
		}
		return verifier.RuleOf(err)
	}
	if rule := check(base); rule != "" {
		t.Fatalf("unchanged: refused by %s", rule)
	}
	var e map[string]any
	if err := json.Unmarshal(base, &e); err != nil {
		t.Fatal(err)
	}
	n := 0
	mutate(e["attestation_report"], func(path string) {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if check(b) == "" {
			t.Errorf("%s changed and accepted", path)
		}
	})
	if n < 500 {
		t.Errorf("%d values changed, expected several hundred", n)
	}
}

// mutate changes every number below v in turn and calls f; then puts it back.
func mutate(v any, f func(path string)) {
	change := func(path string, x any, set func(any)) {
		if num, ok := x.(float64); ok {
			set(float64(int64(num) ^ 1))
			f(path)
			set(x)
		}
		mutate(x, func(p string) { f(path + p) })
	}
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			change("."+k, x, func(y any) { v[k] = y })
		}
	case []any:
		for i, x := range v {
			change("[]", x, func(y any) { v[i] = y })
		}
	}
}

// cocoJSON is a report as CoCo's attester serialises it.
func cocoJSON(t testing.TB, raw []byte, edit func(map[string]any)) []byte {
	t.Helper()
	le := binary.LittleEndian
	ints := func(b []byte) []int {
		n := make([]int, len(b))
		for i, x := range b {
			n[i] = int(x)
		}
		return n
	}
	tcb := func(off int) map[string]any {
		return map[string]any{"fmc": nil, "bootloader": raw[off], "tee": raw[off+1], "snp": raw[off+6], "microcode": raw[off+7]}
	}
	fw := func(off int) map[string]any {
		return map[string]any{"build": raw[off], "minor": raw[off+1], "major": raw[off+2]}
	}
	r := map[string]any{
		"version": le.Uint32(raw), "guest_svn": le.Uint32(raw[4:]), "policy": le.Uint64(raw[8:]), "family_id": ints(raw[0x10:0x20]), "image_id": ints(raw[0x20:0x30]),
		"vmpl": le.Uint32(raw[0x30:]), "sig_algo": le.Uint32(raw[0x34:]), "current_tcb": tcb(0x38), "plat_info": le.Uint64(raw[0x40:]), "key_info": le.Uint32(raw[0x48:]),
		"report_data": ints(raw[0x50:0x90]), "measurement": ints(raw[0x90:0xc0]), "host_data": ints(raw[0xc0:0xe0]), "id_key_digest": ints(raw[0xe0:0x110]),
		"author_key_digest": ints(raw[0x110:0x140]), "report_id": ints(raw[0x140:0x160]), "report_id_ma": ints(raw[0x160:0x180]), "reported_tcb": tcb(0x180),
		"cpuid_fam_id": raw[0x188], "cpuid_mod_id": raw[0x189], "cpuid_step": raw[0x18a], "chip_id": ints(raw[0x1a0:0x1e0]), "committed_tcb": tcb(0x1e0),
		"current": fw(0x1e8), "committed": fw(0x1ec), "launch_tcb": tcb(0x1f0), "launch_mit_vector": le.Uint64(raw[0x1f8:]), "current_mit_vector": le.Uint64(raw[0x200:]),
		"signature": map[string]any{"r": ints(raw[0x2a0:0x2e8]), "s": ints(raw[0x2e8:0x330])},
	}
	if edit != nil {
		edit(r)
	}
	b, err := json.Marshal(map[string]any{"attestation_report": r, "cert_chain": nil})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEvidenceShapes: every real shape is told apart by content; Azure's vTPM
// is bound to the report link by link.
func TestEvidenceShapes(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	v, err := snp.New(snp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ file, shape, extra string }{
		{"snp-turin-v5.report.bin", "raw snp", ""},
		{"snp-turin-v5.coco-evidence.json", "coco snp", ""},
		{"snp-bergamo-v3.original-evidence.json", "coco snp", ""},
		{"tdx-v4.quote.bin", "raw tdx", ""},
		{"tdx-v5-tdx15.coco-evidence.json", "coco tdx", ""},
		{"azsnp-milan-v3-a.original-evidence.json", "az-snp-vtpm", "6368616c6c656e6765"},
		{"azsnp-genoa-v3.original-evidence.json", "az-snp-vtpm", "0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f"},
	} {
		p, err := Parse(verifiertest.ReadFile(t, dir, tt.file))
		if err != nil || p.Shape != tt.shape {
			t.Errorf("%s: got %+v, %v, expected %s", tt.file, p, err, tt.shape)
			continue
		}
		if tt.extra == "" {
			continue
		}
		c, err := p.Verify(context.Background(), v, verifiertest.Time)
		if err != nil || c.VTPM.ExtraData.String() != tt.extra || len(c.VTPM.PCRs) != 24 {
			t.Errorf("%s: got %v, expected extra data %s", tt.file, err, tt.extra)
			continue
		}
		var data kbs.ReportData
		copy(data[:], c.VTPM.ExtraData)
		ref := kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: c.LaunchDigest}}, SNP: &kbs.SNPRules{AllowAdvisories: []string{"all"}}}
		if r := verifier.Appraise(c, ref, verifier.Expectation{ReportData: data, At: verifiertest.Time, Advisories: verifiertest.Advisories(t)}); !r.OK() {
			t.Errorf("%s: failed rules %q", tt.file, verifiertest.Failed(r))
		}
		data[0]++
		if r := verifier.Appraise(c, ref, verifier.Expectation{ReportData: data, At: verifiertest.Time, Advisories: verifiertest.Advisories(t)}); verifiertest.Failed(r) != "report_data" {
			t.Errorf("%s with other data: failed rules %q", tt.file, verifiertest.Failed(r))
		}
	}
}

// TestAzureMutations: one change to the vTPM's half at a time.
func TestAzureMutations(t *testing.T) {
	b := verifiertest.ReadFile(t, verifiertest.Vectors(t), "evidence", "azsnp-milan-v3-a.original-evidence.json")
	v, err := snp.New(snp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, rule string
		edit       func(p *Parsed)
	}{
		{"unchanged", "", func(*Parsed) {}},
		{"variable data", "vtpm_binding", func(p *Parsed) { p.vtpm.varData[100] ^= 1 }},
		{"no variable data", "vtpm_binding", func(p *Parsed) { p.vtpm.varData = nil }},
		{"message", "vtpm_signature", func(p *Parsed) { p.vtpm.message[50] ^= 1 }},
		{"signature", "vtpm_signature", func(p *Parsed) { p.vtpm.signature[0] ^= 1 }},
		{"PCR", "vtpm_pcrs", func(p *Parsed) { p.vtpm.pcrs[0] ^= 1 }},
		{"PCR left out", "vtpm_pcrs", func(p *Parsed) { p.vtpm.pcrs = p.vtpm.pcrs[32:] }},
		{"user data of version 2", "vtpm_user_data", func(p *Parsed) { p.vtpm.version = 2 }},
		{"report", "signature", func(p *Parsed) { p.Evidence.Report[0x50] ^= 1 }},
	} {
		p, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		tt.edit(p)
		if _, err := p.Verify(context.Background(), v, verifiertest.Time); verifier.RuleOf(err) != tt.rule {
			t.Errorf("%s: got %v, expected rule %q", tt.name, err, tt.rule)
		}
	}
}

// TestEvidenceRefused: what is no evidence at all.
func TestEvidenceRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "zeros": make([]byte, 1000), "64 MiB": make([]byte, 64<<20),
		"64 MiB of JSON": append([]byte(`{"quote":"`), bytes.Repeat([]byte("A"), 64<<20)...),
		"empty JSON":     []byte("{}"), "JSON array": []byte("[1]"), "cut JSON": []byte(`{"quote":"AA`), "deep JSON": bytes.Repeat([]byte(`{"quote":`), 20000),
		"quote of another type": []byte(`{"quote":7}`), "report of another type": []byte(`{"attestation_report":[]}`),
		"empty report": []byte(`{"attestation_report":{},"cert_chain":null}`), "padding": []byte(`{"quote":"AB=="}`),
		"short HCL report": []byte(`{"version":1,"hcl_report":"AAAA","tpm_quote":{},"vcek":""}`),
	} {
		if _, err := Parse(b); verifier.RuleOf(err) != "evidence_format" {
			t.Errorf("%s: got %v, expected a refusal by evidence_format", name, err)
		}
	}
}

// TestExtendedReport: a report with the host's certificate table behind it.
func TestExtendedReport(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	raw, table := v.Report(t, c, nil), verifiertest.CertTable(abi.VcekGUID, v.VEK(t, c, verifiertest.VEKOptions{}))
	x, err := x509.ParseCertificate(v.VEK(t, c, verifiertest.VEKOptions{}))
	if err != nil || x.Subject.CommonName != "SEV-VCEK" {
		t.Fatal(err)
	}
	s := v.Verifier(t, snp.Options{})
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
		{"with 65 KiB behind it", "evidence_format", slices.Concat(raw, make([]byte, snp.MaxCertTableBytes+1))},
		{"changed", "signature", slices.Concat(raw[:0x90], []byte{raw[0x90] ^ 1}, raw[0x91:], table)},
		{"twice", "certificate_table", slices.Concat(raw, raw)},
	} {
		p, err := Parse(tt.content)
		if err == nil {
			_, err = p.Verify(context.Background(), s, verifiertest.Time)
		}
		if verifier.RuleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
			t.Errorf("%s: got %v, expected rule %q", tt.name, err, tt.rule)
		}
	}
}
