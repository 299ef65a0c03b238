package verifier

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// strictSNP is reference values that use every rule, and claims that pass.
func strictSNP() (*Claims, kbs.ReferenceValues, Expectation) {
	hex48 := strings.Repeat("ab", 48)
	tcb := kbs.SNPTCB{FMC: 1, Bootloader: 4, TEE: 1, SNP: 30, Microcode: 223}
	c := &Claims{TEE: kbs.SNP, LaunchDigest: kbs.LaunchDigest{1}, ReportData: kbs.ReportData{2}, SNP: &SNPClaims{
		ReportVersion: 5, Product: "Genoa", Silicon: "19/11/1", LaunchMIT: 0x1f, CurrentMIT: 0x1f, Signer: VCEK, GuestSVN: 3, VMPL: 1,
		Policy:       SNPPolicy{ABIMajor: 1, ABIMinor: 51},
		PlatformInfo: PlatformAliasCheck | PlatformCiphertextHiding | PlatformECC | PlatformRAPLDisabled | PlatformTSME,
		HostData:     bytes.Repeat([]byte{0xcd}, 32), IDKeyDigest: bytes.Repeat([]byte{0xab}, 48), AuthorKeyDigest: bytes.Repeat([]byte{0xab}, 48),
		ReportIDMA: bytes.Repeat([]byte{0xff}, 32), ChipID: bytes.Repeat([]byte{0xef}, 64),
		CurrentTCB: tcb, ReportedTCB: tcb, CommittedTCB: tcb, LaunchTCB: tcb, Current: Firmware{1, 55, 29}, Committed: Firmware{1, 55, 29},
	}}
	from, to := testTime.Add(-time.Hour), testTime.Add(time.Hour)
	ref := kbs.ReferenceValues{TEE: kbs.SNP,
		Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{9}}, {LaunchDigest: kbs.LaunchDigest{1}, NotBefore: &from, NotAfter: &to}},
		SNP: &kbs.SNPRules{ForbidSMT: true, VMPL: 1, HostData: strings.Repeat("cd", 32), MinimumABI: &kbs.SNPABI{Major: 1, Minor: 51},
			MinimumTCB: &tcb, MinimumTCBs: map[string]*kbs.SNPTCB{"19/11/1": {SNP: 30}, "19/11/2": {SNP: 255}}, MinimumGuestSVN: 3,
			ChipIDs: []string{strings.Repeat("EF", 64)}, ForbidProducts: []string{"Milan"}, IDKeyDigests: []string{hex48}, AuthorKeyDigests: []string{hex48},
			Signers: []string{VCEK}, RequireAliasCheck: true, RequireCiphertextHiding: true, RequireECC: true, RequireRAPLDisabled: true, RequireTSME: true},
	}
	return c, ref, Expectation{ReportData: kbs.ReportData{2}, At: testTime, Advisories: builtin()}
}

// TestAppraiseSNPMutations: one change to claims, reference values or
// expectation at a time; each is refused by its own rule.
func TestAppraiseSNPMutations(t *testing.T) {
	if c, ref, want := strictSNP(); !Appraise(c, ref, want).OK() {
		t.Fatalf("unchanged: failed rules %q", failed(Appraise(c, ref, want)))
	}
	for _, tt := range []struct {
		name, rule string
		edit       func(c *Claims, s *SNPClaims, ref *kbs.ReferenceValues, want *Expectation)
	}{
		{"TEE", "tee claims", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { c.TEE = kbs.TDX }},
		{"sample TEE", "tee", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { c.TEE = kbs.Sample }},
		{"no TEE", "tee", func(c *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) { c.TEE, r.TEE = "", "" }},
		{"registered TEE", "tee", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) { r.TEE = kbs.Sample }},
		{"no claims", "claims", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { c.SNP = nil }},
		{"claims of two TEEs", "claims", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { c.TDX = &TDXClaims{} }},
		{"launch digest", "measurement", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { c.LaunchDigest[47]++ }},
		{"zero launch digest", "measurement", func(c *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			c.LaunchDigest = kbs.LaunchDigest{}
			r.Measurements = []kbs.Measurement{{}}
		}},
		{"registered digest", "measurement", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			r.Measurements[1].LaunchDigest[0]++
		}},
		{"no measurements", "measurement", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) { r.Measurements = nil }},
		{"measurement not yet valid", "measurement", func(_ *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, w *Expectation) {
			w.At = testTime.Add(-2 * time.Hour)
		}},
		{"measurement no longer valid", "measurement", func(_ *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, w *Expectation) {
			w.At = testTime.Add(2 * time.Hour)
		}},
		{"no time", "clock measurement", func(_ *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, w *Expectation) { w.At = time.Time{} }},
		{"report data", "report_data", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { c.ReportData[63]++ }},
		{"zero report data", "report_data", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, w *Expectation) {
			c.ReportData, w.ReportData = kbs.ReportData{}, kbs.ReportData{}
		}},
		{"vTPM without data", "report_data", func(c *Claims, _ *SNPClaims, _ *kbs.ReferenceValues, w *Expectation) {
			c.VTPM, c.ReportData, w.ReportData = &VTPMClaims{}, kbs.ReportData{1}, kbs.ReportData{}
		}},
		{"debug", "debug", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Policy.Debug = true }},
		{"migrate", "migrate_ma", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Policy.MigrateMA = true }},
		{"SMT", "smt", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Policy.SMT = true }},
		{"CXL", "cxl", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Policy.CXLAllowed = true }},
		{"migration agent", "migration_agent", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ReportIDMA[0] = 1 }},
		{"ABI minor", "abi_minimum", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Policy.ABIMinor-- }},
		{"ABI major", "abi_minimum", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Policy.ABIMajor-- }},
		{"VMPL", "vmpl", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.VMPL = 0 }},
		{"host data", "host_data", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.HostData[0]++ }},
		{"registered host data", "host_data", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) { r.SNP.HostData = "" }},
		{"short host data", "host_data", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) { r.SNP.HostData = "cd" }},
		{"ID key", "id_key_digest", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.IDKeyDigest[0]++ }},
		{"no ID block", "id_key_digest", func(_ *Claims, s *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			clear(s.IDKeyDigest)
			r.SNP.IDKeyDigests = []string{strings.Repeat("0", 96)}
		}},
		{"author key", "author_key_digest", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.AuthorKeyDigest[0]++ }},
		{"guest SVN", "guest_svn", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.GuestSVN-- }},
		{"current TCB", "provisional_firmware", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.CurrentTCB.SNP++ }},
		{"committed TCB", "provisional_firmware", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.CommittedTCB.Microcode-- }},
		{"current build", "provisional_firmware", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Current.Build++ }},
		{"committed minor", "provisional_firmware", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Committed.Minor-- }},
		{"reported fmc", "minimum_tcb", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ReportedTCB.FMC-- }},
		{"reported bootloader", "minimum_tcb", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ReportedTCB.Bootloader-- }},
		{"reported TEE", "minimum_tcb", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ReportedTCB.TEE-- }},
		{"reported SNP", "minimum_tcb minimum_tcb", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ReportedTCB.SNP-- }},
		{"reported microcode", "minimum_tcb", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ReportedTCB.Microcode-- }},
		{"launch TCB", "minimum_tcb", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.LaunchTCB.Microcode-- }},
		{"product floor", "minimum_tcb minimum_tcb", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			r.SNP.MinimumTCBs["19/11/1"].SNP++
		}},
		{"forbidden product", "product", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Product = "Milan" }},
		{"misspelt product forbidden", "product_names", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			r.SNP.ForbidProducts = []string{"Mlian"}
		}},
		{"floor of a line", "minimum_tcb", func(_ *Claims, _ *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			r.SNP.MinimumTCBs["Milan"] = &kbs.SNPTCB{SNP: 255}
		}},
		{"no product", "product", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Product = "" }},
		{"signer", "signer chip_id", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.Signer = VLEK }},
		{"chip id", "chip_id", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.ChipID[63]++ }},
		{"masked chip id", "chip_id", func(_ *Claims, s *SNPClaims, r *kbs.ReferenceValues, _ *Expectation) {
			clear(s.ChipID)
			r.SNP.ChipIDs = []string{strings.Repeat("0", 128)}
		}},
		{"alias check", "platform_info_alias_check", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) {
			s.PlatformInfo &^= PlatformAliasCheck
		}},
		{"ciphertext hiding", "platform_info_ciphertext_hiding", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) {
			s.PlatformInfo &^= PlatformCiphertextHiding
		}},
		{"ECC", "platform_info_ecc", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.PlatformInfo &^= PlatformECC }},
		{"RAPL", "platform_info_rapl_disabled", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) {
			s.PlatformInfo &^= PlatformRAPLDisabled
		}},
		{"TSME", "platform_info_tsme", func(_ *Claims, s *SNPClaims, _ *kbs.ReferenceValues, _ *Expectation) { s.PlatformInfo &^= PlatformTSME }},
	} {
		c, ref, want := strictSNP()
		tt.edit(c, c.SNP, &ref, &want)
		if r := Appraise(c, ref, want); r.OK() || dedupe(failed(r)) != dedupe(tt.rule) {
			t.Errorf("%s: failed rules %q, expected %q", tt.name, failed(r), tt.rule)
		}
	}
	if r := Appraise(nil, kbs.ReferenceValues{}, Expectation{}); r.OK() {
		t.Error("nothing at all is affirmed")
	}
	if (AttestationResult{}).OK() {
		t.Error("the zero result is affirming")
	}
}

// dedupe lets a rule that compares several components fail once or more.
func dedupe(s string) string { return strings.Join(slices.Compact(strings.Fields(s)), " ") }

func strictTDX() (*Claims, kbs.ReferenceValues, Expectation) {
	b := func(x byte, n int) Hex { return bytes.Repeat([]byte{x}, n) }
	h := func(s string, n int) string { return strings.Repeat(s, n) }
	t := &TDXClaims{QuoteVersion: 5, BodyType: 3, TEETCBSVN: b(2, 16), TEETCBSVN2: b(2, 16), MRSEAM: b(0x5e, 48), MRSignerSEAM: b(0, 48),
		SEAMAttributes: b(0, 8), TDAttributes: TDSEPTVEDisable, XFAM: 0xe7, MRTD: b(1, 48), MRConfigID: b(0xc0, 48), MROwner: b(0xc1, 48), MROwnerConfig: b(0xc2, 48),
		RTMRs: [4]Hex{b(0xa0, 48), b(0xa1, 48), b(0xa2, 48), b(0xa3, 48)}, MRServiceTD: b(0, 48),
		TCBStatus: "SWHardeningNeeded", PlatformTCBStatus: "SWHardeningNeeded", ModuleTCBStatus: UpToDate, QETCBStatus: UpToDate, Advisories: []string{"INTEL-SA-1"}, TCBEvaluation: 20}
	ref := kbs.ReferenceValues{TEE: kbs.TDX, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest(b(1, 48))}}, TDX: &kbs.TDXRules{
		RTMRs:      map[string]string{"0": h("a0", 48), "1": h("a1", 48), "2": h("a2", 48), "3": h("a3", 48)},
		MRConfigID: h("c0", 48), MROwner: h("c1", 48), MROwnerConfig: h("c2", 48), MRSEAM: []string{h("5e", 48)},
		TCBStatus: []string{"SWHardeningNeeded"}, AllowAdvisories: []string{"INTEL-SA-1"}, XFAM: "00000000000000e7", MinimumTEETCB: h("02", 16)}}
	return &Claims{TEE: kbs.TDX, LaunchDigest: kbs.LaunchDigest(t.MRTD), ReportData: kbs.ReportData{2}, TDX: t}, ref, Expectation{ReportData: kbs.ReportData{2}, At: testTime, Advisories: builtin()}
}

// TestAppraiseTDXMutations is TestAppraiseSNPMutations for TD quotes.
func TestAppraiseTDXMutations(t *testing.T) {
	if c, ref, want := strictTDX(); !Appraise(c, ref, want).OK() {
		t.Fatalf("unchanged: failed rules %q", failed(Appraise(c, ref, want)))
	}
	var stock kbs.LaunchDigest
	if _, err := hex.Decode(stock[:], []byte(stockQbootMRTD)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, rule string
		edit       func(c *Claims, d *TDXClaims, r *kbs.TDXRules, ref *kbs.ReferenceValues)
	}{
		{"TEE", "tee", func(_ *Claims, _ *TDXClaims, _ *kbs.TDXRules, ref *kbs.ReferenceValues) { ref.TEE = kbs.SNP }},
		{"no claims", "claims", func(c *Claims, _ *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { c.TDX = nil }},
		{"MRTD", "mrtd", func(c *Claims, _ *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { c.LaunchDigest[0]++ }},
		{"no MRTD", "mrtd", func(_ *Claims, _ *TDXClaims, _ *kbs.TDXRules, ref *kbs.ReferenceValues) { ref.Measurements = nil }},
		{"stock qboot, though registered", "mrtd_proves_payload", func(c *Claims, _ *TDXClaims, _ *kbs.TDXRules, ref *kbs.ReferenceValues) {
			c.LaunchDigest, ref.Measurements = stock, []kbs.Measurement{{LaunchDigest: stock}}
		}},
		{"report data", "report_data", func(c *Claims, _ *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { c.ReportData[0]++ }},
		{"debug", "debug", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.TDAttributes |= TDDebug }},
		{"migratable", "migratable", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.TDAttributes |= TDMigratable }},
		{"perfmon", "perfmon", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.TDAttributes |= TDPerfMon }},
		{"SEPT_VE_DISABLE", "sept_ve_disable", func(_ *Claims, d *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) {
			d.TDAttributes, r.RequireSEPTVEDisable = 0, true
		}},
		{"unknown attribute", "td_attributes", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.TDAttributes |= 1 << 1 }},
		{"XFAM", "xfam", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.XFAM |= 1 << 20 }},
		{"unreadable XFAM", "xfam", func(_ *Claims, _ *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) { r.XFAM = "e7" }},
		{"zero XFAM", "xfam", func(_ *Claims, d *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) { d.XFAM, r.XFAM = 0, "" }},
		{"RTMR 0", "rtmr0", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.RTMRs[0][0]++ }},
		{"RTMR 1", "rtmr1", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.RTMRs[1][0]++ }},
		{"RTMR 2", "rtmr2", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.RTMRs[2][0]++ }},
		{"RTMR 3", "rtmr3", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.RTMRs[3][0]++ }},
		{"RTMR 1 left out", "rtmr1", func(_ *Claims, _ *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) { delete(r.RTMRs, "1") }},
		{"RTMR 1 left out and zero", "rtmr1", func(_ *Claims, d *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) {
			delete(r.RTMRs, "1")
			clear(d.RTMRs[1])
		}},
		{"RTMR 3 left out", "rtmr3", func(_ *Claims, _ *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) { delete(r.RTMRs, "3") }},
		{"RTMR 3 empty", "rtmr3", func(_ *Claims, _ *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) { r.RTMRs["3"] = "" }},
		{"RTMR 4", "rtmr", func(_ *Claims, _ *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) { r.RTMRs["4"] = r.RTMRs["0"] }},
		{"no rules", "rtmr0 rtmr1 rtmr2 rtmr3 mr_config_id mr_owner mr_owner_config tcb_status advisories",
			func(_ *Claims, _ *TDXClaims, _ *kbs.TDXRules, ref *kbs.ReferenceValues) { ref.TDX = nil }},
		{"MRCONFIGID", "mr_config_id", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.MRConfigID[0]++ }},
		{"MROWNER", "mr_owner", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.MROwner[0]++ }},
		{"MROWNERCONFIG", "mr_owner_config", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.MROwnerConfig[0]++ }},
		{"MRSEAM", "mr_seam", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.MRSEAM[0]++ }},
		{"MRSIGNERSEAM", "mr_signer_seam", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.MRSignerSEAM[0]++ }},
		{"SEAMATTRIBUTES", "seam_attributes", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.SEAMAttributes[0]++ }},
		{"MRSERVICETD", "mr_service_td", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.MRServiceTD[0]++ }},
		{"TCB status", "tcb_status", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.TCBStatus = "OutOfDate" }},
		{"no TCB status, though allowed", "tcb_status", func(_ *Claims, d *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) {
			d.TCBStatus, r.TCBStatus = "", []string{""}
		}},
		{"revoked, though allowed", "tcb_status", func(_ *Claims, d *TDXClaims, r *kbs.TDXRules, _ *kbs.ReferenceValues) {
			d.TCBStatus, r.TCBStatus = "Revoked", []string{"Revoked"}
		}},
		{"advisory", "advisories", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) {
			d.Advisories = append(d.Advisories, "INTEL-SA-2")
		}},
		{"TDX module SVN", "minimum_tee_tcb", func(_ *Claims, d *TDXClaims, _ *kbs.TDXRules, _ *kbs.ReferenceValues) { d.TEETCBSVN[15]-- }},
	} {
		c, ref, want := strictTDX()
		tt.edit(c, c.TDX, ref.TDX, &ref)
		if r := Appraise(c, ref, want); r.OK() || failed(r) != tt.rule {
			t.Errorf("%s: failed rules %q, expected %q", tt.name, failed(r), tt.rule)
		}
	}
}

// TestRTMRLeftOut: a register that a registration leaves out is no register that
// may hold anything, least of all zeros, which kernels without measuring stubs
// leave in it.
func TestRTMRLeftOut(t *testing.T) {
	for _, n := range []string{"0", "1", "2"} {
		for name, leave := range map[string]func(r map[string]string){
			"left out": func(r map[string]string) { delete(r, n) },
			"empty":    func(r map[string]string) { r[n] = "" },
		} {
			c, ref, want := strictTDX()
			leave(ref.TDX.RTMRs)
			c.TDX.RTMRs[n[0]-'0'] = make(Hex, 48)
			if r := Appraise(c, ref, want); r.OK() || failed(r) != "rtmr"+n {
				t.Errorf("RTMR %s %s: failed rules %q", n, name, failed(r))
			}
		}
	}
}

// TestACPIIsTold: a measurement that lets the host's code run passes, with a rule
// that whoever reads the result sees; no other has that rule.
func TestACPIIsTold(t *testing.T) {
	for _, acpi := range []kbs.ACPI{"", kbs.ACPIOff, kbs.ACPIAllowed} {
		c, ref, want := strictSNP()
		for i := range ref.Measurements {
			ref.Measurements[i].ACPI = acpi
		}
		r := Appraise(c, ref, want)
		i := slices.IndexFunc(r.Rules, func(x Rule) bool { return x.Rule == "acpi" })
		if told := i >= 0; !r.OK() || told != (acpi == kbs.ACPIAllowed) || told && !strings.Contains(r.Rules[i].Got, "ALLOWED") {
			t.Errorf("%q: %q, rule at %d", acpi, failed(r), i)
		}
	}
}

// TestNothingAppraisedIsNoGrant: no rules, no word.
func TestNothingAppraisedIsNoGrant(t *testing.T) {
	if r := (rules{}).result(&Claims{}); r.OK() {
		t.Errorf("%+v", r)
	}
}

// TestZeroDigests: neither a zero launch digest that is registered nor one that
// is claimed matches anything, each by itself.
func TestZeroDigests(t *testing.T) {
	some, at := kbs.LaunchDigest{1}, time.Now()
	for name, c := range map[string]struct{ registered, claimed kbs.LaunchDigest }{
		"registered": {claimed: some}, "claimed": {registered: some}, "both": {},
	} {
		var r rules
		r.measurement("measurement", c.claimed, kbs.ReferenceValues{Measurements: []kbs.Measurement{{LaunchDigest: c.registered}}}, at)
		if len(r) != 1 || r[0].Pass || c.registered.IsZero() && !strings.Contains(r[0].Hint, "no measurement is registered") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestAppraiseVTPMMissing: a registration for a guest with a vTPM is not met
// by one without.
func TestAppraiseVTPMMissing(t *testing.T) {
	c, ref, want := strictSNP()
	ref.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": strings.Repeat("1", 64)}}
	if r := Appraise(c, ref, want); failed(r) != "vtpm" {
		t.Errorf("failed rules %q", failed(r))
	}
}

// TestEventLogFailsClosed: claims of a log that say nothing, or too little.
func TestEventLogFailsClosed(t *testing.T) {
	for name, edit := range map[string]func(d *TDXClaims){
		"zero value":      func(d *TDXClaims) { d.EventLog = &EventLogClaims{} },
		"no RTMRs at all": func(d *TDXClaims) { d.RTMRs[0], d.EventLog.RTMRs[0] = nil, nil },
		"RTMR3 left out":  func(d *TDXClaims) { d.EventLog.RTMRs[3] = nil },
		"RTMR3 cut":       func(d *TDXClaims) { d.EventLog.RTMRs[3] = d.EventLog.RTMRs[3][:47] },
		"with a problem":  func(d *TDXClaims) { d.EventLog.Problem = "unreadable" },
	} {
		c, ref, want := strictTDX()
		c.TDX.EventLog = &EventLogClaims{RTMRs: c.TDX.RTMRs}
		if r := Appraise(c, ref, want); !r.OK() {
			t.Fatalf("unchanged: %q", failed(r))
		}
		edit(c.TDX)
		if r := Appraise(c, ref, want); r.OK() || !strings.HasSuffix(failed(r), "event_log") {
			t.Errorf("%s: failed rules %q", name, failed(r))
		}
	}
}
