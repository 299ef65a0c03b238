package policy

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// The oracle: what one level's rules admit, written field by field without
// the code under test.

func admitsSNP(r kbs.SNPRules, c *verifier.SNPClaims) bool {
	reaches := func(f *kbs.SNPTCB) bool {
		for _, t := range []kbs.SNPTCB{c.ReportedTCB, c.LaunchTCB} {
			if f != nil && (t.FMC < f.FMC || t.Bootloader < f.Bootloader || t.TEE < f.TEE || t.SNP < f.SNP || t.Microcode < f.Microcode) {
				return false
			}
		}
		return true
	}
	among := func(list []string, s string) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) })
	}
	if c.Silicon == "19/01/1" && !slices.Contains(r.AllowAdvisories, "AMD-SB-1") && !slices.Contains(r.AllowAdvisories, "all") && (c.ReportedTCB.Microcode == 0 || c.LaunchTCB.Microcode == 0) {
		return false
	}
	for cpuid, f := range r.MinimumTCBs {
		if cpuid == c.Silicon && !reaches(f) {
			return false
		}
	}
	platform := func(required bool, bit uint64) bool { return !required || c.PlatformInfo&bit != 0 }
	return (r.AllowDebug || !c.Policy.Debug) && (r.AllowMigrateMA || !c.Policy.MigrateMA) && (r.AllowCXL || !c.Policy.CXLAllowed) &&
		(r.AllowProvisional || c.Current == c.Committed) && (!r.ForbidSMT || !c.Policy.SMT) && reaches(r.MinimumTCB) &&
		(r.MinimumABI == nil || uint(c.Policy.ABIMajor)<<8+uint(c.Policy.ABIMinor) >= uint(r.MinimumABI.Major)<<8+uint(r.MinimumABI.Minor)) &&
		c.GuestSVN >= r.MinimumGuestSVN && (len(r.ForbidProducts) == 0 || !among(r.ForbidProducts, c.Product)) &&
		(among(r.ChipIDs, c.ChipID.String()) || among(r.ChipIDs, hex.EncodeToString(c.ChipID[:8])) && !slices.ContainsFunc(c.ChipID[8:], func(b byte) bool { return b != 0 })) && (len(r.ChipIDs) == 0 || c.Signer == "VCEK") &&
		among(r.IDKeyDigests, c.IDKeyDigest.String()) && among(r.AuthorKeyDigests, c.AuthorKeyDigest.String()) && among(r.Signers, c.Signer) &&
		platform(r.RequireAliasCheck, verifier.PlatformAliasCheck) && platform(r.RequireCiphertextHiding, verifier.PlatformCiphertextHiding) &&
		platform(r.RequireECC, verifier.PlatformECC) && platform(r.RequireRAPLDisabled, verifier.PlatformRAPLDisabled) && platform(r.RequireTSME, verifier.PlatformTSME)
}

func admitsTDX(r kbs.TDXRules, c *verifier.TDXClaims) bool {
	attribute := func(bit uint64) bool { return c.TDAttributes&bit != 0 }
	for i, b := range c.TEETCBSVN {
		if floor, _ := hex.DecodeString(r.MinimumTEETCB); len(floor) > 0 && b < floor[i] {
			return false
		}
	}
	var mask uint64
	fmt.Sscanf(r.XFAM, "%x", &mask)
	for _, a := range c.Advisories {
		if c.TCBStatus != "UpToDate" && !slices.Contains(r.AllowAdvisories, a) {
			return false
		}
	}
	return (r.AllowDebug || !attribute(verifier.TDDebug)) && (r.AllowMigration || !attribute(verifier.TDMigratable)) && (r.AllowPerfMon || !attribute(verifier.TDPerfMon)) &&
		(!r.RequireSEPTVEDisable || attribute(verifier.TDSEPTVEDisable)) && (r.XFAM == "" || c.XFAM&^mask == 0) &&
		(len(r.MRSEAM) == 0 || slices.Contains(r.MRSEAM, c.MRSEAM.String())) && (c.TCBStatus == "UpToDate" || slices.Contains(r.TCBStatus, c.TCBStatus))
}

// chance makes rules and claims from so few values that they often meet.
type chance struct{ *rand.Rand }

func (r chance) bool() bool { return r.IntN(2) == 0 }

func (r chance) some(all ...string) []string {
	if r.bool() {
		return nil
	}
	var s []string
	for _, x := range all {
		if r.bool() {
			s = append(s, x)
		}
	}
	return s
}

func (r chance) tcb() *kbs.SNPTCB {
	if r.bool() {
		return nil
	}
	b := func() uint8 { return uint8(r.IntN(2)) }
	return &kbs.SNPTCB{FMC: b(), Bootloader: b(), TEE: b(), SNP: b(), Microcode: b()}
}

func digest(n byte) string { return strings.Repeat(fmt.Sprintf("%02x", n), 48) }

func (r chance) snpRules() kbs.SNPRules {
	// Mostly lenient, so that some claims get through all levels.
	s := kbs.SNPRules{
		AllowDebug: r.IntN(4) > 0, AllowMigrateMA: r.IntN(4) > 0, AllowProvisional: r.IntN(4) > 0, AllowCXL: r.IntN(4) > 0, ForbidSMT: r.IntN(4) == 0,
		RequireAliasCheck: r.IntN(6) == 0, RequireCiphertextHiding: r.IntN(6) == 0, RequireECC: r.IntN(6) == 0, RequireRAPLDisabled: r.IntN(6) == 0, RequireTSME: r.IntN(6) == 0,
		AllowAdvisories: r.some("AMD-SB-1", "AMD-SB-2", "all"), MinimumTCB: r.tcb(), MinimumGuestSVN: uint32(r.IntN(2)),
		ChipIDs: r.some(strings.Repeat("07", 64), strings.Repeat("08", 64), "0909090909090909"), ForbidProducts: r.some("milan", "Genoa"),
		IDKeyDigests: r.some(digest(1), digest(2)), AuthorKeyDigests: r.some(digest(0xab), strings.ToUpper(digest(0xab)), digest(2)), Signers: r.some("VCEK", "VLEK"),
	}
	if len(s.ChipIDs) > 0 && len(s.Signers) == 1 {
		s.Signers = nil
	}
	for _, p := range []string{"19/01/1", "19/01/2", "1a/02/1"} {
		if f := r.tcb(); f != nil && r.bool() {
			if s.MinimumTCBs == nil {
				s.MinimumTCBs = map[string]*kbs.SNPTCB{}
			}
			s.MinimumTCBs[p] = f
		}
	}
	if r.bool() {
		s.MinimumABI = &kbs.SNPABI{Major: uint8(r.IntN(2)), Minor: uint8(r.IntN(3))}
	}
	return s
}

func (r chance) snpClaims() *verifier.Claims {
	pick := func(n ...byte) verifier.Hex { return slices.Repeat([]byte{n[r.IntN(len(n))]}, 48) }
	tcb := func() kbs.SNPTCB {
		if r.IntN(3) > 0 {
			return kbs.SNPTCB{FMC: 1, Bootloader: 1, TEE: 1, SNP: 1, Microcode: 1}
		}
		return orEmpty(r.tcb())
	}
	line := r.IntN(3)
	s := &verifier.SNPClaims{
		Product: []string{"Milan", "Genoa", "Turin"}[line], Silicon: []string{"19/01/1", "19/11/1", "1a/02/1"}[line], Signer: []string{"VCEK", "VLEK"}[r.IntN(2)], GuestSVN: uint32(r.IntN(3)),
		Policy:   verifier.SNPPolicy{ABIMajor: uint8(r.IntN(3)), ABIMinor: uint8(r.IntN(3)), SMT: r.bool(), Debug: r.IntN(4) == 0, MigrateMA: r.IntN(4) == 0, CXLAllowed: r.IntN(4) == 0},
		HostData: make([]byte, 32), IDKeyDigest: pick(1, 2, 3), AuthorKeyDigest: pick(0xab, 2),
		ChipID: slices.Repeat([]byte{byte(7 + r.IntN(2))}, 64), ReportedTCB: tcb(), LaunchTCB: tcb(), PlatformInfo: r.Uint64() | r.Uint64() | r.Uint64(),
		Current: verifier.Firmware{Build: 1}, Committed: verifier.Firmware{Build: uint8(1 - r.IntN(4)/3)},
	}
	if r.IntN(3) == 0 {
		s.ChipID = append(slices.Repeat([]byte{9}, 8), make([]byte, 56)...)
	}
	return &verifier.Claims{TEE: kbs.SNP, LaunchDigest: kbs.LaunchDigest{1}, ReportData: kbs.ReportData{1}, SNP: s}
}

func (r chance) tdxRules() kbs.TDXRules {
	floor := make([]byte, 16)
	for i := range floor {
		floor[i] = byte(r.IntN(8) / 7)
	}
	t := kbs.TDXRules{
		AllowDebug: r.IntN(4) > 0, AllowMigration: r.IntN(4) > 0, AllowPerfMon: r.IntN(4) > 0, RequireSEPTVEDisable: r.IntN(4) == 0,
		MRSEAM: r.some(digest(1), digest(2), digest(3)), TCBStatus: append(r.some("UpToDate"), "OutOfDate", "SWHardeningNeeded")[r.IntN(2):],
		AllowAdvisories: append(r.some("INTEL-SA-1"), "INTEL-SA-2"), RTMRs: map[string]string{"0": digest(1), "1": digest(1), "2": digest(1)},
	}
	if r.bool() {
		t.XFAM = fmt.Sprintf("%016x", r.Uint64()|r.Uint64()|1)
	}
	if r.bool() {
		t.MinimumTEETCB = hex.EncodeToString(floor)
	}
	return t
}

func (r chance) tdxClaims() *verifier.Claims {
	one := func(n byte) verifier.Hex { return slices.Repeat([]byte{n}, 48) }
	svn := make([]byte, 16)
	for i := range svn {
		svn[i] = 2 - byte(r.IntN(32)/31)*2
	}
	t := &verifier.TDXClaims{
		TDAttributes: r.Uint64()&r.Uint64()&(verifier.TDDebug|verifier.TDMigratable|verifier.TDPerfMon) | r.Uint64()&verifier.TDSEPTVEDisable,
		XFAM:         r.Uint64()&r.Uint64()&r.Uint64()&r.Uint64() | 1, MRTD: one(1), RTMRs: [4]verifier.Hex{one(1), one(1), one(1), make([]byte, 48)},
		MRConfigID: make([]byte, 48), MROwner: make([]byte, 48), MROwnerConfig: make([]byte, 48), MRSignerSEAM: make([]byte, 48), SEAMAttributes: make([]byte, 8),
		MRSEAM: one(byte(1 + r.IntN(3))), TEETCBSVN: svn, TCBEvaluation: 1, TCBStatus: []string{"UpToDate", "UpToDate", "OutOfDate", "SWHardeningNeeded"}[r.IntN(4)],
		Advisories: r.some("INTEL-SA-1", "INTEL-SA-2"),
	}
	return &verifier.Claims{TEE: kbs.TDX, LaunchDigest: kbs.LaunchDigest{1}, ReportData: kbs.ReportData{1}, TDX: t}
}

var bound = verifier.Expectation{ReportData: kbs.ReportData{1}, At: noon, Advisories: oneAdvisory()}

// oneAdvisory is a table with one advisory for Milan, one for TDX. nil, which is
// refused, if it is no good.
func oneAdvisory() *advisory.Table {
	t, _ := advisory.Parse([]byte(`{"format":1,"version":1,"date":"2026-01-01",
		"silicon":[{"cpuid":"19/01/1","product":"Milan","name":"a"},{"cpuid":"19/11/1","product":"Genoa","name":"b"},{"cpuid":"1a/02/1","product":"Turin","name":"c"}],
		"advisories":[{"id":"AMD-SB-1","title":"a","source":"b","floors":[{"cpuid":"19/01/1","tcb":{"microcode":1}}]},{"id":"INTEL-SA-3","title":"a","source":"b","tdx":{"evaluation":1}}]}`))
	return t
}

func measured(tee kbs.TEE) kbs.ReferenceValues {
	return kbs.ReferenceValues{TEE: tee, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{1}}}}
}

// TestMergeIsTheConjunction: over random rules of three levels and random
// claims, the merged rules accept what every level accepts, and nothing that
// one refuses; a contradiction is reported only where no claims fit.
func TestMergeIsTheConjunction(t *testing.T) {
	r := chance{rand.New(rand.NewPCG(1, 2))}
	var accepted, refused, contradictions int
	for range 2000 {
		tee := []kbs.TEE{kbs.SNP, kbs.TDX}[r.IntN(2)]
		ref, parts := measured(tee), make([]Part, r.IntN(3))
		var snp []kbs.SNPRules
		var tdx []kbs.TDXRules
		for i := range len(parts) + 1 {
			s, x := r.snpRules(), r.tdxRules()
			snp, tdx = append(snp, s), append(tdx, x)
			if i > 0 {
				parts[i-1] = Part{"server", kbs.Policy{SNP: &s, TDX: &x}}
			} else if tee == kbs.SNP {
				ref.SNP = &s
			} else {
				ref.TDX = &x
			}
		}
		before, _ := json.Marshal([]any{ref, parts})
		merged, err := Merge(ref, parts...)
		if after, _ := json.Marshal([]any{ref, parts}); string(before) != string(after) {
			t.Fatal("Merge changed its arguments")
		}
		for range 12 {
			c, all := r.snpClaims(), true
			if tee == kbs.TDX {
				c = r.tdxClaims()
			}
			for i := range snp {
				all = all && (tee == kbs.SNP && admitsSNP(snp[i], c.SNP) || tee == kbs.TDX && admitsTDX(tdx[i], c.TDX))
			}
			switch {
			case err != nil:
				contradictions++
				if all {
					t.Fatalf("%v, but all levels accept %+v %+v", err, c.SNP, c.TDX)
				}
				continue
			case all:
				accepted++
			default:
				refused++
			}
			if a := verifier.Appraise(c, merged, bound); a.OK() != all {
				t.Fatalf("merged: %v, levels: %v\n%+v\nclaims %+v %+v\nmerged %s\nlevels %s", a.Result, all, a.Failed(), c.SNP, c.TDX, show(merged), before)
			}
		}
	}
	t.Logf("%d accepted, %d refused, %d contradictory", accepted, refused, contradictions)
	if accepted < 500 || refused < 5000 || contradictions < 500 {
		t.Error("the rules meet too rarely for this test to mean anything")
	}
}

func show(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// TestMergeContradictions: policies that cannot be met together, by reason.
func TestMergeContradictions(t *testing.T) {
	for name, x := range map[string]struct {
		a, b string
		want string
	}{
		"chips":    {`{"snp":{"chip_ids":["` + strings.Repeat("07", 64) + `"]}}`, `{"snp":{"chip_ids":["` + strings.Repeat("08", 64) + `"]}}`, "chip_ids"},
		"signers":  {`{"snp":{"signers":["VCEK"]}}`, `{"snp":{"signers":["VLEK"]}}`, "signers"},
		"VLEK":     {`{"snp":{"signers":["VLEK"]}}`, `{"snp":{"chip_ids":["` + strings.Repeat("08", 64) + `"]}}`, "only a VCEK"},
		"products": {`{"snp":{"forbid_products":["Milan","genoa"]}}`, `{"snp":{"forbid_products":["turin"]}}`, "every product"},
		"keys":     {`{"snp":{"id_key_digests":["` + digest(1) + `"]}}`, `{"snp":{"id_key_digests":["` + digest(2) + `"]}}`, "id_key_digests"},
		"authors":  {`{"snp":{"author_key_digests":["` + digest(1) + `"]}}`, `{"snp":{"author_key_digests":["` + digest(2) + `"]}}`, "author_key_digests"},
		"modules":  {`{"tdx":{"mr_seam":["` + digest(1) + `"]}}`, `{"tdx":{"mr_seam":["` + digest(2) + `"]}}`, "mr_seam"},
		"features": {`{"tdx":{"xfam":"0000000000000003"}}`, `{"tdx":{"xfam":"0000000000000004"}}`, "no bit in common"},
	} {
		for _, order := range [][2]string{{x.a, x.b}, {x.b, x.a}} {
			tee := kbs.SNP
			if strings.Contains(x.a, "tdx") {
				tee = kbs.TDX
			}
			ref := Apply(measured(tee), mustParse(t, order[0]))
			if _, err := Merge(ref, Part{kbs.LevelTenant, mustParse(t, order[1])}); err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "tenant") {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := compiler(t).Effective(ref, Part{kbs.LevelTenant, mustParse(t, order[1])}); err == nil {
				t.Errorf("%s: Effective accepted it", name)
			}
		}
	}
}

func mustParse(t testing.TB, s string) kbs.Policy {
	t.Helper()
	p, err := Parse([]byte(s))
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return p
}

// strictness is, for every rule that a level can set, a policy that alone
// refuses the claims as changed.
var strictness = []struct {
	tee    kbs.TEE
	rule   string
	field  string // JSON name, for completeness
	policy string // stricter than permissive
	change func(*verifier.SNPClaims, *verifier.TDXClaims)
}{
	{kbs.SNP, "debug", "allow_debug", `{"allow_migrate_ma":true,"allow_provisional":true,"allow_cxl":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Policy.Debug = true }},
	{kbs.SNP, "migrate_ma", "allow_migrate_ma", `{"allow_debug":true,"allow_provisional":true,"allow_cxl":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Policy.MigrateMA = true }},
	{kbs.SNP, "migration_agent", "allow_migrate_ma", `{"allow_debug":true,"allow_provisional":true,"allow_cxl":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.ReportIDMA = verifier.Hex{1} }},
	{kbs.SNP, "provisional_firmware", "allow_provisional", `{"allow_debug":true,"allow_migrate_ma":true,"allow_cxl":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Current.Build++ }},
	{kbs.SNP, "cxl", "allow_cxl", `{"allow_debug":true,"allow_migrate_ma":true,"allow_provisional":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Policy.CXLAllowed = true }},
	{kbs.SNP, "smt", "forbid_smt", `{"forbid_smt":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Policy.SMT = true }},
	{kbs.SNP, "abi_minimum", "minimum_abi", `{"minimum_abi":{"major":1,"minor":5}}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Policy.ABIMinor = 4 }},
	{kbs.SNP, "guest_svn", "minimum_guest_svn", `{"minimum_guest_svn":3}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.GuestSVN = 2 }},
	{kbs.SNP, "minimum_tcb", "minimum_tcb", `{"minimum_tcb":{"bootloader":0,"tee":0,"snp":24,"microcode":0}}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.LaunchTCB.SNP = 23 }},
	{kbs.SNP, "advisory:AMD-SB-1", "allow_advisories", `{"allow_debug":true,"allow_advisories":["AMD-SB-2"]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.LaunchTCB.Microcode = 0 }},
	{kbs.TDX, "advisory:INTEL-SA-3", "allow_advisories", `{"allow_debug":true,"allow_advisories":["INTEL-SA-2"]}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TCBEvaluation = 0 }},
	{kbs.SNP, "minimum_tcb", "minimum_tcbs", `{"minimum_tcbs":{"19/01/1":{"bootloader":0,"tee":0,"snp":0,"microcode":200}}}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.ReportedTCB.Microcode = 199 }},
	{kbs.SNP, "chip_id", "chip_ids", `{"chip_ids":["` + strings.Repeat("07", 64) + `"]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.ChipID[0] ^= 1 }},
	{kbs.SNP, "product", "forbid_products", `{"forbid_products":["Genoa"]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Product = "Genoa" }},
	{kbs.SNP, "signer", "signers", `{"signers":["VCEK"]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Signer = "VLEK" }},
	{kbs.SNP, "id_key_digest", "id_key_digests", `{"id_key_digests":["` + digest(1) + `"]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.IDKeyDigest[0] ^= 1 }},
	{kbs.SNP, "author_key_digest", "author_key_digests", `{"author_key_digests":["` + digest(1) + `"]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.AuthorKeyDigest[0] ^= 1 }},
	{kbs.SNP, "platform_info_alias_check", "require_alias_check", `{"require_alias_check":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.PlatformInfo &^= verifier.PlatformAliasCheck }},
	{kbs.SNP, "platform_info_ciphertext_hiding", "require_ciphertext_hiding", `{"require_ciphertext_hiding":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) {
		s.PlatformInfo &^= verifier.PlatformCiphertextHiding
	}},
	{kbs.SNP, "platform_info_ecc", "require_ecc", `{"require_ecc":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.PlatformInfo &^= verifier.PlatformECC }},
	{kbs.SNP, "platform_info_rapl_disabled", "require_rapl_disabled", `{"require_rapl_disabled":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.PlatformInfo &^= verifier.PlatformRAPLDisabled }},
	{kbs.SNP, "platform_info_tsme", "require_tsme", `{"require_tsme":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.PlatformInfo &^= verifier.PlatformTSME }},
	{kbs.SNP, "platform_info_iommu_write_safe", "require_iommu_write_safe", `{"require_iommu_write_safe":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) {
		s.PlatformInfo &^= verifier.PlatformIOMMUWriteSafe
	}},
	{kbs.SNP, "platform_info_smt", "forbid_platform_smt", `{"forbid_platform_smt":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.PlatformInfo |= verifier.PlatformSMT }},
	{kbs.SNP, "platform_info_tio", "forbid_tio", `{"forbid_tio":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.PlatformInfo |= verifier.PlatformTIO }},
	{kbs.SNP, "page_swap_disable", "require_page_swap_disable", `{"require_page_swap_disable":true}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.Policy.Bits = 0 }},
	{kbs.SNP, "mitigations", "require_mitigations", `{"require_mitigations":[1,5]}`, func(s *verifier.SNPClaims, _ *verifier.TDXClaims) { s.LaunchMIT &^= 1 << 5 }},
	{kbs.TDX, "machine_id", "machine_ids", `{"machine_ids":["` + strings.Repeat("AB", 16) + `"]}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.PPID = strings.Repeat("ac", 16) }},
	{kbs.TDX, "minimum_tcb_evaluation", "minimum_tcb_evaluation", `{"minimum_tcb_evaluation":30}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TCBEvaluation = 29 }},
	{kbs.TDX, "debug", "allow_debug", `{"allow_migration":true,"allow_perfmon":true}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TDAttributes |= verifier.TDDebug }},
	{kbs.TDX, "migratable", "allow_migration", `{"allow_debug":true,"allow_perfmon":true}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TDAttributes |= verifier.TDMigratable }},
	{kbs.TDX, "mr_service_td", "allow_migration", `{"allow_debug":true,"allow_perfmon":true}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.MRServiceTD = verifier.Hex{1} }},
	{kbs.TDX, "perfmon", "allow_perfmon", `{"allow_debug":true,"allow_migration":true}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TDAttributes |= verifier.TDPerfMon }},
	{kbs.TDX, "sept_ve_disable", "require_sept_ve_disable", `{"require_sept_ve_disable":true}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TDAttributes &^= verifier.TDSEPTVEDisable }},
	{kbs.TDX, "xfam", "xfam", `{"xfam":"00000000000000ff"}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.XFAM |= 1 << 8 }},
	{kbs.TDX, "mr_seam", "mr_seam", `{"mr_seam":["` + digest(1) + `"]}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.MRSEAM[0] ^= 1 }},
	{kbs.TDX, "tcb_status", "tcb_status", `{"tcb_status":["SWHardeningNeeded"]}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TCBStatus = "OutOfDate" }},
	{kbs.TDX, "advisories", "allow_advisories", `{"tcb_status":["OutOfDate"],"allow_advisories":["INTEL-SA-2"]}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) {
		x.TCBStatus, x.Advisories = "OutOfDate", []string{"INTEL-SA-1"}
	}},
	{kbs.TDX, "minimum_tee_tcb", "minimum_tee_tcb", `{"minimum_tee_tcb":"02` + strings.Repeat("00", 15) + `"}`, func(_ *verifier.SNPClaims, x *verifier.TDXClaims) { x.TEETCBSVN[0] = 1 }},
}

func perfect(tee kbs.TEE) *verifier.Claims {
	one := func() verifier.Hex { return slices.Repeat([]byte{1}, 48) }
	if tee == kbs.SNP {
		tcb := kbs.SNPTCB{FMC: 255, Bootloader: 255, TEE: 255, SNP: 255, Microcode: 255}
		return &verifier.Claims{TEE: tee, LaunchDigest: kbs.LaunchDigest{1}, ReportData: kbs.ReportData{1}, SNP: &verifier.SNPClaims{
			Product: "Milan", Silicon: "19/01/1", Signer: "VCEK", GuestSVN: 9, Policy: verifier.SNPPolicy{Bits: verifier.PolicyPageSwapDisable, ABIMajor: 1, ABIMinor: 9}, HostData: make([]byte, 32),
			IDKeyDigest: one(), AuthorKeyDigest: one(), ChipID: slices.Repeat([]byte{7}, 64), ReportedTCB: tcb, LaunchTCB: tcb, PlatformInfo: 0x7e, ReportVersion: 5, LaunchMIT: 1<<1 | 1<<5, CurrentMIT: 1<<1 | 1<<5,
		}}
	}
	return &verifier.Claims{TEE: tee, LaunchDigest: kbs.LaunchDigest{1}, ReportData: kbs.ReportData{1}, TDX: &verifier.TDXClaims{
		TDAttributes: verifier.TDSEPTVEDisable, XFAM: 0xff, RTMRs: [4]verifier.Hex{one(), one(), one(), make([]byte, 48)},
		MRConfigID: make([]byte, 48), MROwner: make([]byte, 48), MROwnerConfig: make([]byte, 48), MRSignerSEAM: make([]byte, 48), SEAMAttributes: make([]byte, 8),
		MRSEAM: one(), TEETCBSVN: slices.Repeat([]byte{9}, 16), TCBStatus: "UpToDate", TCBEvaluation: 30, PPID: strings.Repeat("ab", 16),
	}}
}

func permissive(tee kbs.TEE) kbs.Policy {
	if tee == kbs.SNP {
		p := permissiveSNP()
		return kbs.Policy{SNP: &p}
	}
	return kbs.Policy{TDX: &kbs.TDXRules{AllowDebug: true, AllowMigration: true, AllowPerfMon: true, TCBStatus: []string{"SWHardeningNeeded", "OutOfDate"},
		AllowAdvisories: []string{"INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3=2026-05-06"}}}
}

// TestEachLevelAloneRefuses: every rule, set at one level and open at the
// other two, refuses claims that differ in nothing else, and says which level
// it was. Open at all three, the same claims pass.
func TestEachLevelAloneRefuses(t *testing.T) {
	c := compiler(t)
	covered := map[string]bool{}
	for _, x := range strictness {
		covered[string(x.tee)+"."+x.field] = true
		strict := mustParse(t, `{"`+string(x.tee)+`":`+x.policy+`}`)
		for _, level := range []string{"", kbs.LevelServer, kbs.LevelTenant, kbs.LevelWorkload} {
			at := func(l string) kbs.Policy {
				if l == level {
					return strict
				}
				return permissive(x.tee)
			}
			ref := Apply(measured(x.tee), at(kbs.LevelWorkload))
			if x.tee == kbs.TDX {
				own := *ref.TDX
				own.RTMRs = map[string]string{"0": digest(1), "1": digest(1), "2": digest(1)}
				ref.TDX = &own
			}
			e, err := c.Effective(ref, Part{kbs.LevelServer, at(kbs.LevelServer)}, Part{kbs.LevelTenant, at(kbs.LevelTenant)})
			if err != nil {
				t.Fatalf("%s: %v", x.rule, err)
			}
			claims := perfect(x.tee)
			if a := e.Appraise(claims, bound); !a.OK() {
				t.Fatalf("%s at %q: perfect claims refused: %+v", x.rule, level, a.Failed())
			}
			x.change(claims.SNP, claims.TDX)
			a := e.Appraise(claims, bound)
			if level == "" {
				if !a.OK() {
					t.Errorf("%s: refused though all allow it: %+v", x.rule, a.Failed())
				}
				continue
			}
			if failed := a.Failed(); len(failed) != 1 || failed[0].Rule != x.rule || failed[0].Level != level || failed[0].Hint == "" {
				t.Errorf("%s set by %s: %+v", x.rule, level, failed)
			}
		}
	}
	for tee, typ := range map[string]reflect.Type{"snp": reflect.TypeFor[kbs.SNPRules](), "tdx": reflect.TypeFor[kbs.TDXRules]()} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			own := slices.Contains([]string{"vmpl", "host_data", "rtmrs", "mr_config_id", "mr_owner", "mr_owner_config"}, name)
			if covered[tee+"."+name] == own {
				t.Errorf("%s.%s: neither merged nor a workload's own, or both", tee, name)
			}
		}
	}
}

// TestLevelsOfOtherRules: several levels at once, the workload's own rules,
// and those that no policy sets.
func TestLevelsOfOtherRules(t *testing.T) {
	c := compiler(t)
	strict, later := kbs.Policy{SNP: &kbs.SNPRules{}}, noon.Add(1)
	e, err := c.Effective(Apply(measured(kbs.SNP), permissive(kbs.SNP)), Part{kbs.LevelServer, strict}, Part{kbs.LevelTenant, strict},
		Part{kbs.LevelTenant, kbs.Policy{NotAfter: &later, CEL: []kbs.Expression{{Name: "no-smt", Expression: "!claims.snp.policy.smt"}}}})
	if err != nil {
		t.Fatal(err)
	}
	claims := perfect(kbs.SNP)
	claims.LaunchDigest, claims.ReportData = kbs.LaunchDigest{2}, kbs.ReportData{2}
	claims.SNP.Policy.Debug, claims.SNP.Policy.SMT, claims.SNP.VMPL = true, true, 1
	want := bound
	want.At = later
	got := map[string]string{}
	for _, r := range e.Appraise(claims, want).Failed() {
		got[r.Rule] = r.Level
	}
	expected := map[string]string{"debug": "server, tenant", "measurement": "workload", "vmpl": "workload", "report_data": "", "cel:no-smt": "tenant", "policy_not_after": "tenant"}
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("%v, expected %v", got, expected)
	}
	want.At = later.Add(-1)
	for _, r := range e.Appraise(perfect(kbs.SNP), want).Rules {
		if !r.Pass || r.Level != "" {
			t.Errorf("%+v", r)
		}
	}
	if r := e.Appraise(nil, want); r.OK() {
		t.Errorf("no claims: %+v", r)
	}
}

// TestLevelsOfTDXRules: the same for TDX, whose rules have no level that allows
// everything, and for a vTPM's.
func TestLevelsOfTDXRules(t *testing.T) {
	ref := Apply(measured(kbs.TDX), kbs.Policy{TDX: &kbs.TDXRules{RTMRs: map[string]string{"0": digest(2), "1": digest(1), "2": digest(1)}},
		VTPM: &kbs.VTPMRules{PCRs: map[string]string{"4": digest(1)[:64]}}})
	e, err := compiler(t).Effective(ref, Part{kbs.LevelServer, permissive(kbs.TDX)})
	if err != nil {
		t.Fatal(err)
	}
	claims := perfect(kbs.TDX)
	claims.TDX.TCBStatus, claims.TDX.Advisories = "OutOfDate", []string{"INTEL-SA-4"}
	claims.TDX.MRSignerSEAM[0], claims.TDX.MRConfigID[0] = 1, 1
	claims.TDX.TDAttributes |= verifier.TDPerfMon
	got := map[string]string{}
	for _, r := range e.Appraise(claims, bound).Failed() {
		got[r.Rule] = r.Level
	}
	expected := map[string]string{"rtmr0": "workload", "mr_config_id": "workload", "vtpm": "workload", "mr_signer_seam": "", "perfmon": "workload",
		"tcb_status": "workload", "advisories": "server, workload"}
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("%v, expected %v", got, expected)
	}
}

// TestCELNeedsAnEvaluator: reference values with expressions match nothing
// where nobody evaluates them.
func TestCELNeedsAnEvaluator(t *testing.T) {
	ref := measured(kbs.SNP)
	if a := verifier.Appraise(perfect(kbs.SNP), ref, bound); !a.OK() {
		t.Fatalf("%+v", a.Failed())
	}
	ref.CEL = []kbs.Expression{{Name: "x", Expression: "claims.snp.vmpl == 0"}}
	if a := verifier.Appraise(perfect(kbs.SNP), ref, bound); a.OK() || a.Failed()[0].Rule != "cel:x" {
		t.Errorf("%+v", a.Failed())
	}
	e, err := compiler(t).Effective(ref)
	if err != nil {
		t.Fatal(err)
	}
	if a := e.Appraise(perfect(kbs.SNP), bound); !a.OK() {
		t.Errorf("%+v", a.Failed())
	}
}
