package endorsements

import (
	"context"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestVLEKFromStores: a provider's certificate is found by product and TCB,
// whatever keeps it; one for another TCB is not taken for it.
func TestVLEKFromStores(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	old := *c
	old.TCB.SNP--
	report := v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2; clear(r[0x1a0:0x1e0]) })
	good, stale := v.VEK(t, c, verifiertest.VEKOptions{VLEK: true}), v.VEK(t, &old, verifiertest.VEKOptions{VLEK: true})
	for _, tt := range []struct {
		name, rule string
		content    [][]byte
	}{
		{"the right one", "", [][]byte{stale, good}},
		{"for another TCB", "certificate_tcb", [][]byte{stale}},
		{"a VCEK alone", "endorsement", [][]byte{v.VEK(t, c, verifiertest.VEKOptions{})}},
		{"nothing", "endorsement", nil},
	} {
		cache, bundle := cacheOf(t, v, t.TempDir()), &Bundle{}
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
		for name, from := range map[string]snp.Endorsements{"cache": cache, "bundle": bundle, "KDS": kds, "another type": wrapped{bundle}} {
			_, err := v.Verifier(t, snp.Options{Endorsements: from}).Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report}, verifiertest.Time)
			if verifier.RuleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
				t.Errorf("%s from %s: %v, expected %q", tt.name, name, err, tt.rule)
			}
		}
	}
}

// wrapped is Endorsements of a type that no verifier knows.
type wrapped struct{ snp.Endorsements }

// TestSubjects: what must be fetched for each kind of evidence.
func TestSubjects(t *testing.T) {
	for _, fmc := range []bool{false, true} {
		v, c := vendortest.NewVendor(t, fmc), verifiertest.NewChip(t, fmc)
		vcek := v.VEK(t, c, verifiertest.VEKOptions{})
		p := &evidence.Parsed{Evidence: kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil), Certificates: verifiertest.CertTable(abi.VcekGUID, vcek)}}
		all, err := Subjects(p.Evidence)
		size := map[bool]int{false: 64, true: 8}[fmc]
		if err != nil || len(all) != 1 || all[0].Product != v.Line.Name || all[0].Signer != verifier.VCEK || all[0].TCB != c.TCB || len(all[0].ChipID) != size {
			t.Errorf("fmc %t: %+v, %v", fmc, all, err)
		}
		if certs, err := p.Certificates(); err != nil || len(certs) != 1 || string(certs[0]) != string(vcek) {
			t.Errorf("fmc %t: %d certificates, %v", fmc, len(certs), err)
		}
		p.Evidence.Report = v.Report(t, c, func(r []byte) { r[0] = 2; clear(r[0x188:0x18b]) })
		if all, err = Subjects(p.Evidence); err != nil || len(all) == 0 {
			t.Errorf("fmc %t, version 2: %+v, %v", fmc, all, err)
		}
		p.Evidence.Report = v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2; clear(r[0x1a0:0x1e0]) })
		if all, err = Subjects(p.Evidence); err != nil || len(all) != 1 || all[0].Signer != verifier.VLEK || len(all[0].ChipID) != 0 {
			t.Errorf("fmc %t, VLEK: %+v, %v", fmc, all, err)
		}
		p.Evidence.Report = v.Report(t, c, func(r []byte) { r[0x188] = 0x17 })
		if _, err = Subjects(p.Evidence); verifier.RuleOf(err) != "product" {
			t.Errorf("fmc %t, unknown processor: %v", fmc, err)
		}
		p.Evidence.Certificates = []byte("no table")
		if _, err = p.Certificates(); verifier.RuleOf(err) != "certificate_table" {
			t.Errorf("damaged table: %v", err)
		}
	}
	n := vendortest.NewIntel(t) // which Subjects does not trust
	p := &evidence.Parsed{Evidence: kbs.Evidence{TEE: kbs.TDX, Report: n.Quote(t, verifiertest.Body(nil))}}
	if _, err := Subjects(p.Evidence); verifier.RuleOf(err) != "certificate_chain" {
		t.Errorf("a quote under another root: %v", err)
	}
	p.Evidence.Report = p.Evidence.Report[:700]
	if _, err := Subjects(p.Evidence); verifier.RuleOf(err) != "evidence_format" {
		t.Errorf("a quote cut short: %v", err)
	}
}
