package verifier

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestVLEKFromStores: a provider's certificate is found by product and TCB,
// whatever keeps it; one for another TCB is not taken for it.
func TestVLEKFromStores(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	old := *c
	old.tcb.SNP--
	report := v.report(t, c, func(r []byte) { r[0x48] = 1 << 2; clear(r[0x1a0:0x1e0]) })
	good, stale := v.vek(t, c, vekOptions{vlek: true}), v.vek(t, &old, vekOptions{vlek: true})
	for _, tt := range []struct {
		name, rule string
		content    [][]byte
	}{
		{"the right one", "", [][]byte{stale, good}},
		{"for another TCB", "certificate_tcb", [][]byte{stale}},
		{"a VCEK alone", "endorsement", [][]byte{v.vek(t, c, vekOptions{})}},
		{"nothing", "endorsement", nil},
	} {
		cache, bundle := v.cache(t, t.TempDir()), &Bundle{}
		for _, b := range tt.content {
			if _, _, err := cache.Add(b); err != nil {
				t.Fatal(err)
			}
			bundle.Add(b)
		}
		kds, err := NewKDS(KDSOptions{BaseURL: "https://kds.invalid", Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		for name, from := range map[string]Endorsements{"cache": cache, "bundle": bundle, "KDS": kds, "another type": wrapped{bundle}} {
			_, err := v.verifier(t, SNPOptions{Endorsements: from}).Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report}, testTime)
			if ruleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
				t.Errorf("%s from %s: %v, expected %q", tt.name, name, err, tt.rule)
			}
		}
	}
}

// wrapped is Endorsements of a type that no verifier knows.
type wrapped struct{ Endorsements }

// TestSubjects: what must be fetched for each kind of evidence.
func TestSubjects(t *testing.T) {
	for _, fmc := range []bool{false, true} {
		v, c := newVendor(t, fmc), newChip(t, fmc)
		vcek := v.vek(t, c, vekOptions{})
		p := &Parsed{Evidence: kbs.Evidence{TEE: kbs.SNP, Report: v.report(t, c, nil), Certificates: certTable(abi.VcekGUID, vcek)}}
		all, err := Subjects(p.Evidence)
		size := map[bool]int{false: 64, true: 8}[fmc]
		if err != nil || len(all) != 1 || all[0].Product != v.line.Name || all[0].Signer != VCEK || all[0].TCB != c.tcb || len(all[0].ChipID) != size {
			t.Errorf("fmc %t: %+v, %v", fmc, all, err)
		}
		if certs, err := p.Certificates(); err != nil || len(certs) != 1 || string(certs[0]) != string(vcek) {
			t.Errorf("fmc %t: %d certificates, %v", fmc, len(certs), err)
		}
		p.Evidence.Report = v.report(t, c, func(r []byte) { r[0] = 2; clear(r[0x188:0x18b]) })
		if all, err = Subjects(p.Evidence); err != nil || len(all) == 0 {
			t.Errorf("fmc %t, version 2: %+v, %v", fmc, all, err)
		}
		p.Evidence.Report = v.report(t, c, func(r []byte) { r[0x48] = 1 << 2; clear(r[0x1a0:0x1e0]) })
		if all, err = Subjects(p.Evidence); err != nil || len(all) != 1 || all[0].Signer != VLEK || len(all[0].ChipID) != 0 {
			t.Errorf("fmc %t, VLEK: %+v, %v", fmc, all, err)
		}
		p.Evidence.Report = v.report(t, c, func(r []byte) { r[0x188] = 0x17 })
		if _, err = Subjects(p.Evidence); ruleOf(err) != "product" {
			t.Errorf("fmc %t, unknown processor: %v", fmc, err)
		}
		p.Evidence.Certificates = []byte("no table")
		if _, err = p.Certificates(); ruleOf(err) != "certificate_table" {
			t.Errorf("damaged table: %v", err)
		}
	}
	n := newIntel(t) // which Subjects does not trust
	p := &Parsed{Evidence: kbs.Evidence{TEE: kbs.TDX, Report: n.Quote(t, verifiertest.Body(nil))}}
	if _, err := Subjects(p.Evidence); ruleOf(err) != "certificate_chain" {
		t.Errorf("a quote under another root: %v", err)
	}
	p.Evidence.Report = p.Evidence.Report[:700]
	if _, err := Subjects(p.Evidence); ruleOf(err) != "evidence_format" {
		t.Errorf("a quote cut short: %v", err)
	}
}

// TestErrorResult: a refusal as the result that is shown: one failed rule,
// nothing believed.
func TestErrorResult(t *testing.T) {
	cause := errors.New("the cause")
	err := refuse("signature", "good", "bad", "a hint", cause)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, cause) || e.Hint() != "a hint" {
		t.Fatalf("%v", err)
	}
	r := e.Result(kbs.SNP)
	if r.OK() || r.TEE != kbs.SNP || r.Claims != nil || len(r.Rules) != 1 || r.Rules[0].Pass || r.Rules[0].Got != "bad (the cause)" {
		t.Errorf("%+v", r)
	}
}
