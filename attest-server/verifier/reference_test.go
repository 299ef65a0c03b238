package verifier

import (
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestCheckReferenceValues: one slip at a time is refused, naming what is
// wrong; what Appraise can match is accepted.
func TestCheckReferenceValues(t *testing.T) {
	snp := func() kbs.ReferenceValues { _, r, _ := strictSNP(); return r }
	tdx := func() kbs.ReferenceValues { _, r, _ := strictTDX(); return r }
	for _, tt := range []struct {
		name, want string // no want: accepted
		ref        func() kbs.ReferenceValues
		edit       func(r *kbs.ReferenceValues)
	}{
		{"SNP", "", snp, func(*kbs.ReferenceValues) {}},
		{"TDX", "", tdx, func(*kbs.ReferenceValues) {}},
		{"SNP by default", "", snp, func(r *kbs.ReferenceValues) { r.SNP = nil }},
		{"sample", "", snp, func(r *kbs.ReferenceValues) { r.TEE = kbs.Sample }},
		{"Turin's chip id", "", snp, func(r *kbs.ReferenceValues) { r.SNP.ChipIDs = []string{"0102030405060708"} }},
		{"every TCB status", "", tdx, func(r *kbs.ReferenceValues) { r.TDX.TCBStatus = tcbStatuses() }},
		{"no TEE", "tee", snp, func(r *kbs.ReferenceValues) { r.TEE = "" }},
		{"misspelt TEE", "tee", snp, func(r *kbs.ReferenceValues) { r.TEE = "sev" }},
		{"no measurements", "0 measurements", snp, func(r *kbs.ReferenceValues) { r.Measurements = nil }},
		{"too many", "65 measurements", snp, func(r *kbs.ReferenceValues) { r.Measurements = make([]kbs.Measurement, 65) }},
		{"zero measurement", "without launch_digest", snp, func(r *kbs.ReferenceValues) { r.Measurements[0].LaunchDigest = kbs.LaunchDigest{} }},
		{"period turned round", "never valid", snp, func(r *kbs.ReferenceValues) {
			m := &r.Measurements[1]
			m.NotBefore, m.NotAfter = m.NotAfter, m.NotBefore
		}},
		{"period undone", "earlier one", snp, func(r *kbs.ReferenceValues) { r.Measurements[0].LaunchDigest = r.Measurements[1].LaunchDigest }},
		{"libkrun's MRTD", "neither kernel nor initrd", tdx, func(r *kbs.ReferenceValues) {
			if err := r.Measurements[0].LaunchDigest.UnmarshalText([]byte(stockQbootMRTD)); err != nil {
				t.Fatal(err)
			}
		}},
		{"rules of the other TEE", "another TEE", snp, func(r *kbs.ReferenceValues) { r.TDX = &kbs.TDXRules{} }},
		{"rules of the other TEE, TDX", "another TEE", tdx, func(r *kbs.ReferenceValues) { r.SNP = &kbs.SNPRules{} }},
		{"TDX without rules", "rtmrs", tdx, func(r *kbs.ReferenceValues) { r.TDX = nil }},
		{"no RTMR 0", "rtmrs without 0", tdx, func(r *kbs.ReferenceValues) { delete(r.TDX.RTMRs, "0") }},
		{"no RTMR 1", "rtmrs without 1", tdx, func(r *kbs.ReferenceValues) { delete(r.TDX.RTMRs, "1") }},
		{"no RTMR 2", "rtmrs without 2", tdx, func(r *kbs.ReferenceValues) { delete(r.TDX.RTMRs, "2") }},
		{"QEMU without a word on ACPI", "whether the host's ACPI code runs", snp, func(r *kbs.ReferenceValues) { r.Measurements[0].Profile = "qemu-snp" }},
		{"the simulator without a word on ACPI", "whether the host's ACPI code runs", snp, func(r *kbs.ReferenceValues) { r.Measurements[1].Profile = "qemu-direct" }},
		{"QEMU that stops ACPI", "", snp, func(r *kbs.ReferenceValues) {
			r.Measurements[0].Profile, r.Measurements[0].ACPI = "qemu-snp", kbs.ACPIOff
		}},
		{"QEMU with ACPI allowed", "", snp, func(r *kbs.ReferenceValues) {
			r.Measurements[0].Profile, r.Measurements[0].ACPI = "qemu-snp", kbs.ACPIAllowed
		}},
		{"unknown word on ACPI", "acpi \"on\"", snp, func(r *kbs.ReferenceValues) { r.Measurements[0].ACPI = "on" }},
		{"RTMR 4", "expected 0 to 3", tdx, func(r *kbs.ReferenceValues) { r.TDX.RTMRs["4"] = r.TDX.RTMRs["1"] }},
		{"short RTMR", "rtmr 2", tdx, func(r *kbs.ReferenceValues) { r.TDX.RTMRs["2"] = "00" }},
		{"unknown status", "tcb_status", tdx, func(r *kbs.ReferenceValues) { r.TDX.TCBStatus = []string{"SWHardening"} }},
		{"revoked accepted", "tcb_status", tdx, func(r *kbs.ReferenceValues) { r.TDX.TCBStatus = []string{"Revoked"} }},
		{"advisory", "advisory", tdx, func(r *kbs.ReferenceValues) { r.TDX.AllowAdvisories = []string{"SA-00837"} }},
		{"empty XFAM", "xfam", tdx, func(r *kbs.ReferenceValues) { r.TDX.XFAM = strings.Repeat("0", 16) }},
		{"XFAM", "xfam", tdx, func(r *kbs.ReferenceValues) { r.TDX.XFAM = "0x" }},
		{"MRSEAM", "mr_seam", tdx, func(r *kbs.ReferenceValues) { r.TDX.MRSEAM = []string{"ab"} }},
		{"zero MRSEAM", "all zero", tdx, func(r *kbs.ReferenceValues) { r.TDX.MRSEAM = []string{strings.Repeat("0", 96)} }},
		{"MRCONFIGID", "mr_config_id", tdx, func(r *kbs.ReferenceValues) { r.TDX.MRConfigID = "xy" }},
		{"MROWNER", "mr_owner", tdx, func(r *kbs.ReferenceValues) { r.TDX.MROwner = "xy" }},
		{"MROWNERCONFIG", "mr_owner_config", tdx, func(r *kbs.ReferenceValues) { r.TDX.MROwnerConfig = "xy" }},
		{"TEE TCB", "minimum_tee_tcb", tdx, func(r *kbs.ReferenceValues) { r.TDX.MinimumTEETCB = "00" }},
		{"PCRs", "", snp, func(r *kbs.ReferenceValues) {
			r.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": strings.Repeat("ab", 32), "0": strings.Repeat("0", 64)}}
		}},
		{"no PCRs", "PCR 4", snp, func(r *kbs.ReferenceValues) { r.VTPM = &kbs.VTPMRules{} }},
		{"PCRs of the firmware alone", "PCR 4", snp, func(r *kbs.ReferenceValues) {
			r.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"0": strings.Repeat("ab", 32)}}
		}},
		{"zero PCR 4", "PCR 4", snp, func(r *kbs.ReferenceValues) {
			r.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": strings.Repeat("0", 64), "11": strings.Repeat("ab", 32)}}
		}},
		{"PCR 24", "pcr", snp, func(r *kbs.ReferenceValues) {
			r.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"24": strings.Repeat("ab", 32)}}
		}},
		{"PCR 04", "pcr", snp, func(r *kbs.ReferenceValues) {
			r.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"04": strings.Repeat("ab", 32)}}
		}},
		{"short PCR", "pcr 4", snp, func(r *kbs.ReferenceValues) { r.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": "ab"}} }},
		{"VMPL", "vmpl", snp, func(r *kbs.ReferenceValues) { r.SNP.VMPL = 4 }},
		{"host data", "host_data", snp, func(r *kbs.ReferenceValues) { r.SNP.HostData = "abc" }},
		{"misspelt product", `"Milano"`, snp, func(r *kbs.ReferenceValues) { r.SNP.ForbidProducts = []string{"Milano"} }},
		{"misspelt floor", `"Genua"`, snp, func(r *kbs.ReferenceValues) { r.SNP.MinimumTCBs = map[string]*kbs.SNPTCB{"Genua": {}} }},
		{"floor of a line", "ambiguous", snp, func(r *kbs.ReferenceValues) { r.SNP.MinimumTCBs = map[string]*kbs.SNPTCB{"genoa": {SNP: 27}} }},
		{"floor of half a silicon", `"19/11"`, snp, func(r *kbs.ReferenceValues) { r.SNP.MinimumTCBs = map[string]*kbs.SNPTCB{"19/11": {SNP: 27}} }},
		{"floor in upper case", `"19/A0/2"`, snp, func(r *kbs.ReferenceValues) { r.SNP.MinimumTCBs = map[string]*kbs.SNPTCB{"19/A0/2": {SNP: 27}} }},
		{"no advisory", "AMD-SB-", snp, func(r *kbs.ReferenceValues) { r.SNP.AllowAdvisories = []string{"SB-3030"} }},
		{"an advisory until never", "YYYY-MM-DD", snp, func(r *kbs.ReferenceValues) { r.SNP.AllowAdvisories = []string{"AMD-SB-3030="} }},
		{"an advisory twice", "twice", snp, func(r *kbs.ReferenceValues) {
			r.SNP.AllowAdvisories = []string{"AMD-SB-3030", "AMD-SB-3030=2027-01-01"}
		}},
		{"null floor", "null", snp, func(r *kbs.ReferenceValues) { r.SNP.MinimumTCBs = map[string]*kbs.SNPTCB{"19/11/1": nil} }},
		{"every product forbidden", "nothing could match", snp, func(r *kbs.ReferenceValues) { r.SNP.ForbidProducts = []string{"milan", "Genoa", "Turin"} }},
		{"signer", "signer", snp, func(r *kbs.ReferenceValues) { r.SNP.Signers = []string{"vcek"} }},
		{"chip id of a VLEK", "only a VCEK", snp, func(r *kbs.ReferenceValues) { r.SNP.Signers = []string{VLEK} }},
		{"empty chip id", "chip_ids", snp, func(r *kbs.ReferenceValues) { r.SNP.ChipIDs = []string{""} }},
		{"zero chip id", "all zero", snp, func(r *kbs.ReferenceValues) { r.SNP.ChipIDs = []string{strings.Repeat("0", 128)} }},
		{"id key", "id_key_digests", snp, func(r *kbs.ReferenceValues) { r.SNP.IDKeyDigests = []string{"q"} }},
		{"author key", "author_key_digests", snp, func(r *kbs.ReferenceValues) { r.SNP.AuthorKeyDigests = []string{"q"} }},
	} {
		ref := tt.ref()
		tt.edit(&ref)
		err := CheckReferenceValues(ref)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, expected %q", tt.name, err, tt.want)
		}
	}
}
