package verifier_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestAzureTDX is az-tdx-vtpm end to end: PCK, quote, paravisor, vTPM, PCRs.
// One link is broken at a time, and the rule for that link says so.
func TestAzureTDX(t *testing.T) {
	vendor := vendortest.NewIntel(t)
	for _, tt := range []struct {
		name, rules string
		edit        func(a *verifiertest.VTPM, n *vendortest.Intel, ref *kbs.ReferenceValues, want *verifier.Expectation)
	}{
		{name: "as is"},
		{name: "other report data", rules: "report_data", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, _ *kbs.ReferenceValues, w *verifier.Expectation) {
			w.ReportData[0]++
		}},
		{name: "other kernel", rules: "pcr11", edit: func(a *verifiertest.VTPM, _ *vendortest.Intel, _ *kbs.ReferenceValues, _ *verifier.Expectation) {
			a.PCRs[11][0]++
		}},
		{name: "other boot loader", rules: "pcr4", edit: func(a *verifiertest.VTPM, _ *vendortest.Intel, _ *kbs.ReferenceValues, _ *verifier.Expectation) {
			a.PCRs[4][0]++
		}},
		{name: "other PCR, not registered", edit: func(a *verifiertest.VTPM, _ *vendortest.Intel, _ *kbs.ReferenceValues, _ *verifier.Expectation) {
			a.PCRs[7][0]++
		}},
		{name: "boot loader not registered", rules: "pcrs_registered", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, _ *verifier.Expectation) {
			delete(r.VTPM.PCRs, "4")
		}},
		{name: "no PCRs registered", rules: "pcrs_registered", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, _ *verifier.Expectation) {
			r.VTPM = nil
		}},
		{name: "no PCRs registered, none required", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, w *verifier.Expectation) {
			r.VTPM, w.RequirePCRs = nil, false
		}},
		{name: "empty PCR rules", rules: "pcrs_registered", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, w *verifier.Expectation) {
			r.VTPM, w.RequirePCRs = &kbs.VTPMRules{}, false
		}},
		{name: "PCRs of the firmware alone", rules: "pcrs_registered", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, _ *verifier.Expectation) {
			r.VTPM.PCRs = map[string]string{"0": strings.Repeat("0", 64)}
		}},
		{name: "PCR 99", rules: "pcrs_registered pcr99", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, _ *verifier.Expectation) {
			r.VTPM.PCRs["99"] = strings.Repeat("0", 64)
		}},
		{name: "empty PCR", rules: "pcrs_registered pcr11", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, r *kbs.ReferenceValues, _ *verifier.Expectation) {
			r.VTPM.PCRs["11"] = ""
		}},
		{name: "no vTPM key in REPORT_DATA", rules: "vtpm_binding"},
		{name: "PCK revoked", rules: "revocation", edit: func(_ *verifiertest.VTPM, n *vendortest.Intel, _ *kbs.ReferenceValues, _ *verifier.Expectation) {
			n.RevokedPCK = []int64{verifiertest.PCKSerial}
		}},
		{name: "TCB out of date", rules: "tcb_status", edit: func(_ *verifiertest.VTPM, n *vendortest.Intel, _ *kbs.ReferenceValues, _ *verifier.Expectation) {
			n.TCB = n.TCBInfo()
			n.TCB["tcbLevels"].([]map[string]any)[0]["tcbStatus"] = "OutOfDate"
		}},
		{name: "TCB of a revoked platform", rules: "tcb_status", edit: func(_ *verifiertest.VTPM, n *vendortest.Intel, r *kbs.ReferenceValues, _ *verifier.Expectation) {
			n.TCB = n.TCBInfo()
			n.TCB["tcbLevels"].([]map[string]any)[0]["tcbStatus"] = "Revoked"
			r.TDX.TCBStatus = []string{"Revoked"}
		}},
		{name: "collateral of another platform", rules: "collateral", edit: func(_ *verifiertest.VTPM, n *vendortest.Intel, _ *kbs.ReferenceValues, _ *verifier.Expectation) {
			n.TCB = n.TCBInfo()
			n.TCB["fmspc"] = "00a06d000001"
		}},
		{name: "collateral expired", rules: "collateral_validity", edit: func(_ *verifiertest.VTPM, _ *vendortest.Intel, _ *kbs.ReferenceValues, w *verifier.Expectation) {
			w.At = verifiertest.Time.AddDate(0, 2, 0)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := *vendor
			a := &verifiertest.VTPM{Key: verifiertest.RSAKeys()[0], UserData: bytes.Repeat([]byte{0xda}, 48)}
			a.PCRs[4], a.PCRs[11] = [32]byte{0x44}, [32]byte{0x11}
			var data kbs.ReportData
			copy(data[:], a.UserData)
			want := verifier.Expectation{ReportData: data, At: verifiertest.Time, RequirePCRs: true, Advisories: verifiertest.Advisories(t)}
			ref := kbs.ReferenceValues{TEE: kbs.TDX, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}, TDX: &kbs.TDXRules{RTMRs: verifiertest.RTMRs()},
				VTPM: &kbs.VTPMRules{PCRs: map[string]string{"4": "44" + strings.Repeat("0", 62), "11": "11" + strings.Repeat("0", 62)}}}
			if tt.edit != nil {
				tt.edit(a, &n, &ref, &want)
			}
			digest := sha256.Sum256(a.VarData(t))
			if tt.name == "no vTPM key in REPORT_DATA" {
				digest[0]++
			}
			p, err := evidence.Parse(a.EvidenceTDX(t, n.Quote(t, verifiertest.Body(digest[:]))))
			if err != nil {
				t.Fatal(err)
			}
			v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{n.Publish(t)}})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			c, err := p.Verify(context.Background(), v, want.At)
			if err != nil {
				got = verifier.RuleOf(err)
			} else {
				got = verifiertest.Failed(verifier.Appraise(c, ref, want))
			}
			if got != tt.rules || err != nil && got == "" {
				t.Errorf("failed rules %q, %v, expected %q", got, err, tt.rules)
			}
		})
	}
}
