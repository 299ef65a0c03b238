package verifier

import (
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

const twoAdvisories = `{"format":1,"version":3,"date":"2026-01-02",
"silicon":[{"cpuid":"19/11/1","product":"Genoa","name":"Genoa B1"},{"cpuid":"19/11/2","product":"Genoa","name":"Genoa-X"}],
"advisories":[{"id":"AMD-SB-1","title":"one","source":"s","floors":[{"cpuid":"19/11/1","tcb":{"snp":29},"mitigation_bits":[4],"platform_bits":[2]},{"cpuid":"19/11/2","tcb":{"snp":31}}]},
{"id":"AMD-SB-2","title":"two","source":"s","warning":true,"floors":[{"cpuid":"19/11/2"}]},
{"id":"INTEL-SA-3","title":"three","source":"s","tdx":{"evaluation":20,"module_svns":{"2":9}}}]}`

// TestAdvisoriesSNP: each way of falling short of a floor, and of being allowed
// to; what the rule says of it.
func TestAdvisoriesSNP(t *testing.T) {
	table, err := advisory.Parse([]byte(twoAdvisories))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		edit  func(s *SNPClaims, r *kbs.SNPRules)
		table *advisory.Table
		fails bool
		rule  string // with its got; empty: no rule of an advisory
	}{
		"sound":                {func(*SNPClaims, *kbs.SNPRules) {}, table, false, ""},
		"no table":             {func(*SNPClaims, *kbs.SNPRules) {}, nil, true, "silicon: none"},
		"reported SNP":         {func(s *SNPClaims, _ *kbs.SNPRules) { s.ReportedTCB.SNP = 28 }, table, true, "advisory:AMD-SB-1: AMD-SB-1: SNP 28, needs 29"},
		"SNP at launch":        {func(s *SNPClaims, _ *kbs.SNPRules) { s.LaunchTCB.SNP = 28 }, table, true, "advisory:AMD-SB-1: AMD-SB-1: SNP 28 at launch, needs 29"},
		"mitigation":           {func(s *SNPClaims, _ *kbs.SNPRules) { s.CurrentMIT = 0xf }, table, true, "advisory:AMD-SB-1: AMD-SB-1: mitigation bit 4 off"},
		"mitigation at launch": {func(s *SNPClaims, _ *kbs.SNPRules) { s.LaunchMIT = 0xf }, table, true, "advisory:AMD-SB-1: AMD-SB-1: mitigation bit 4 off at launch"},
		"version 3":            {func(s *SNPClaims, _ *kbs.SNPRules) { s.ReportVersion = 3 }, table, true, "advisory:AMD-SB-1: AMD-SB-1: mitigation bit 4 not shown by a report of version 3, needs 5"},
		"platform":             {func(s *SNPClaims, _ *kbs.SNPRules) { s.PlatformInfo &^= PlatformECC }, table, true, "advisory:AMD-SB-1: AMD-SB-1: PLATFORM_INFO bit 2 off"},
		"several":              {func(s *SNPClaims, _ *kbs.SNPRules) { s.ReportedTCB.SNP, s.LaunchMIT = 1, 0 }, table, true, "advisory:AMD-SB-1: AMD-SB-1: SNP 1, needs 29; mitigation bit 4 off at launch"},
		"unknown stepping":     {func(s *SNPClaims, _ *kbs.SNPRules) { s.Silicon = "19/11/0" }, table, true, "silicon: Genoa 19/11/0"},
		"Venice":               {func(s *SNPClaims, _ *kbs.SNPRules) { s.Silicon = "1a/50/0" }, table, true, "silicon: Genoa 1a/50/0"},
		"not named":            {func(s *SNPClaims, _ *kbs.SNPRules) { s.Silicon = "" }, table, true, "advisory:AMD-SB-2: WARNING: AMD-SB-2: two"},
		"unknown, allowed":     {func(s *SNPClaims, r *kbs.SNPRules) { s.Silicon, r.AllowAdvisories = "19/11/0", []string{"all"} }, table, false, ""},
		"unknown, not by name": {func(s *SNPClaims, r *kbs.SNPRules) { s.Silicon, r.AllowAdvisories = "19/11/0", []string{"AMD-SB-1"} }, table, true, "silicon: Genoa 19/11/0"},
		"allowed":              {func(s *SNPClaims, r *kbs.SNPRules) { s.ReportedTCB.SNP, r.AllowAdvisories = 1, []string{"AMD-SB-1"} }, table, false, "advisory:AMD-SB-1: AMD-SB-1: SNP 1, needs 29"},
		"allowed until today": {func(s *SNPClaims, r *kbs.SNPRules) {
			s.ReportedTCB.SNP, r.AllowAdvisories = 1, []string{"AMD-SB-1=2026-03-01"}
		}, table, false, "advisory:AMD-SB-1: AMD-SB-1: SNP 1, needs 29"},
		"allowed until then": {func(s *SNPClaims, r *kbs.SNPRules) {
			s.ReportedTCB.SNP, r.AllowAdvisories = 1, []string{"AMD-SB-1=2026-02-28"}
		}, table, true, "advisory:AMD-SB-1: AMD-SB-1: SNP 1, needs 29"},
		"another allowed": {func(s *SNPClaims, r *kbs.SNPRules) { s.ReportedTCB.SNP, r.AllowAdvisories = 1, []string{"AMD-SB-2"} }, table, true, "advisory:AMD-SB-1: AMD-SB-1: SNP 1, needs 29"},
		"a warning": {func(s *SNPClaims, r *kbs.SNPRules) {
			s.Silicon, s.ReportedTCB.SNP, s.LaunchTCB.SNP, r.MinimumTCBs = "19/11/2", 31, 31, nil
		}, table, false, "advisory:AMD-SB-2: WARNING: AMD-SB-2: two"},
	} {
		c, ref, want := strictSNP()
		want.Advisories = tt.table
		ref.SNP.MinimumTCB, ref.SNP.MinimumTCBs, ref.SNP.RequireECC = nil, nil, false
		tt.edit(c.SNP, ref.SNP)
		r := Appraise(c, ref, want)
		got := ""
		for _, x := range r.Rules {
			if strings.HasPrefix(x.Rule, "advisory:") || x.Rule == "silicon" && !x.Pass {
				got = x.Rule + ": " + x.Got
				if x.Rule != "advisory:AMD-SB-2" && x.Pass == tt.fails || !x.Pass && x.Hint == "" || x.Pass && len(ref.SNP.AllowAdvisories) > 0 && !strings.Contains(x.Expected, "ALLOWED by AMD-SB-1") {
					t.Errorf("%s: %+v", name, x)
				}
			}
		}
		if got != tt.rule || r.OK() == tt.fails {
			t.Errorf("%s: %q, %s, failed %q, expected %q", name, got, r.Result, failed(r), tt.rule)
		}
	}
}

// TestAdvisoriesTDX: the same for collateral and module of a TD.
func TestAdvisoriesTDX(t *testing.T) {
	table, err := advisory.Parse([]byte(twoAdvisories))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		edit func(x *TDXClaims, r *kbs.TDXRules)
		got  string // of the rule; empty: none failed
	}{
		"sound":             {func(*TDXClaims, *kbs.TDXRules) {}, ""},
		"evaluation":        {func(x *TDXClaims, _ *kbs.TDXRules) { x.TCBEvaluation = 19 }, "INTEL-SA-3: TCB evaluation 19, needs 20: fetch newer collateral, with `ccrun certs fetch --update early`"},
		"module at launch":  {func(x *TDXClaims, _ *kbs.TDXRules) { x.TEETCBSVN[0] = 8 }, "INTEL-SA-3: TDX module 2 of SVN 8, needs 9"},
		"module now":        {func(x *TDXClaims, _ *kbs.TDXRules) { x.TEETCBSVN2[0] = 8 }, "INTEL-SA-3: TDX module 2 of SVN 8, needs 9"},
		"module not listed": {func(x *TDXClaims, _ *kbs.TDXRules) { x.TEETCBSVN[0], x.TEETCBSVN[1] = 255, 1 }, "INTEL-SA-3: TDX module 1, of which the table does not know"},
		"allowed": {func(x *TDXClaims, r *kbs.TDXRules) {
			x.TCBEvaluation, r.AllowAdvisories = 0, []string{"INTEL-SA-1", "INTEL-SA-3"}
		}, ""},
		"all allowed": {func(x *TDXClaims, r *kbs.TDXRules) { x.TCBEvaluation, r.AllowAdvisories = 0, []string{"all"} }, ""},
	} {
		c, ref, want := strictTDX()
		want.Advisories, ref.TDX.MinimumTEETCB = table, ""
		for _, svn := range []Hex{c.TDX.TEETCBSVN, c.TDX.TEETCBSVN2} {
			svn[0] = 9
		}
		tt.edit(c.TDX, ref.TDX)
		got := ""
		for _, x := range Appraise(c, ref, want).Failed() {
			if got = x.Got; x.Rule != "advisory:INTEL-SA-3" {
				t.Errorf("%s: %+v", name, x)
			}
		}
		if got != tt.got {
			t.Errorf("%s: %q, expected %q", name, got, tt.got)
		}
	}
	c, ref, want := strictTDX()
	want.Advisories = nil
	if r := Appraise(c, ref, want); failed(r) != "advisories" {
		t.Errorf("no table: failed rules %q", failed(r))
	}
}

// TestAdvisoryInEAR: what passes by leave, or with a warning, is no more than a
// warning to those who read the EAR.
func TestAdvisoryInEAR(t *testing.T) {
	c, ref, want := strictSNP()
	c.SNP.LaunchMIT = 0
	want.Advisories, _ = advisory.Parse([]byte(twoAdvisories))
	for list, status := range map[string]string{"": Contraindicated, "all": "warning"} {
		ref.SNP.AllowAdvisories = strings.Fields(list)
		wire, err := Appraise(c, ref, want).Wire()
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEAR(wire, VerifierID{"d", "b"}, "p", testTime)
		if err != nil || e.Status != status {
			t.Errorf("allowed %q: %v, %v", list, e.Status, err)
		}
	}
}
