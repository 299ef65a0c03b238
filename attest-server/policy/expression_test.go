package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func compiler(t testing.TB) *Compiler {
	t.Helper()
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func snpClaims() *verifier.Claims {
	return &verifier.Claims{
		TEE: kbs.SNP, LaunchDigest: kbs.LaunchDigest{1},
		SNP: &verifier.SNPClaims{
			ReportVersion: 3, Product: "Milan", CPUID: "00a00f11", Silicon: "19/01/1", Signer: "VCEK", HostData: make([]byte, 32), ChipID: verifier.Hex{7, 8},
			PlatformInfo: verifier.PlatformECC | verifier.PlatformSMT, Policy: verifier.SNPPolicy{ABIMinor: 31, SMT: true},
			ReportedTCB: kbs.SNPTCB{SNP: 24, Microcode: 219}, Current: verifier.Firmware{Major: 1, Minor: 55, Build: 30},
		},
		Chain: []verifier.Certificate{{Subject: "CN=ARK-Milan", NotAfter: noon.AddDate(20, 0, 0)}, {Subject: "CN=SEV-VCEK", NotAfter: noon.AddDate(0, 0, 40)}},
	}
}

func tdxClaims() *verifier.Claims {
	return &verifier.Claims{TEE: kbs.TDX, LaunchDigest: kbs.LaunchDigest{2}, TDX: &verifier.TDXClaims{
		TDAttributes: verifier.TDSEPTVEDisable | verifier.TDPerfMon, TCBStatus: "UpToDate", FMSPC: "90c06f000000", PCESVN: 13,
		Advisories: []string{"INTEL-SA-00837"}, RTMRs: [4]verifier.Hex{{1}, {2}, {3}, {4}},
	}}
}

// TestExpressions: what each says of one SNP and one TDX guest: true, false
// or an error, which refuses too.
func TestExpressions(t *testing.T) {
	c := compiler(t)
	for text, want := range map[string]string{
		`claims.tee == "snp"`:                                               "true false",
		`claims.snp.vmpl == 0`:                                              "true error",
		`has(claims.snp) && claims.snp.product == "Milan"`:                  "true false",
		`!has(claims.snp) || claims.snp.policy.smt`:                         "true true",
		`!claims.snp.policy.debug`:                                          "true error", // absent is not false
		`has(claims.tdx) && claims.tdx.pce_svn >= 13`:                       "false true",
		`claims.launch_digest.startsWith("01")`:                             "true false",
		`claims.snp.chip_id == "0708"`:                                      "true error",
		`bitAnd(claims.snp.platform_info, 4u) != 0u`:                        "true error",
		`bitAnd(claims.tdx.td_attributes, 1u << 2u) != 0u`:                  "refused",
		`bitAnd(claims.tdx.td_attributes, 9223372036854775808u) != 0u`:      "error true",
		`claims.tdx.advisories.all(a, a in ["INTEL-SA-00837", "x"])`:        "error true",
		`claims.tdx.rtmrs[0] == "01"`:                                       "error true",
		`claims.tdx.rtmrs[9] == "01"`:                                       "error error",
		`claims.chain.all(c, c.not_after > now + duration("720h"))`:         "true true",
		`claims.chain.exists(c, c.subject.contains("VCEK"))`:                "true false",
		`now < timestamp("2026-06-01T00:00:00Z")`:                           "true true",
		`now > timestamp("2026-06-01T00:00:00Z")`:                           "false false",
		`claims.snp.current.minor * 100 + claims.snp.current.build >= 5530`: "true error",
		`claims.snp.reported_tcb.snp / claims.snp.vmpl == 1`:                "error error",
		`size(claims.chain) == 2`:                                           "true false",
	} {
		x, err := c.compile(kbs.Expression{Name: "x", Expression: text}, "")
		if err != nil {
			if want != "refused" {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		var got []string
		for _, claims := range []*verifier.Claims{snpClaims(), tdxClaims()} {
			r := x.Apply(claims, noon)
			word, _, _ := strings.Cut(r.Got, ":")
			got = append(got, word)
			if r.Rule != "cel:x" || r.Expected != text || r.Pass != (r.Got == "true") || r.Pass != (r.Hint == "") {
				t.Errorf("%s: %+v", text, r)
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, expected %s", text, s, want)
		}
	}
	x, err := c.compile(kbs.Expression{Name: "x", Expression: `claims.tee == "snp"`, Hint: "do this"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, claims := range []*verifier.Claims{nil, {}} {
		if r := x.Apply(claims, time.Time{}); r.Pass || r.Hint != "do this" {
			t.Errorf("no claims: %+v", r)
		}
	}
}

// TestCompileRefuses: by a part of the reason.
func TestCompileRefuses(t *testing.T) {
	c := compiler(t)
	for text, want := range map[string]string{
		"":                                      "empty",
		"  ":                                    "empty",
		"claims.snp.vmp == 0":                   "undefined field",
		"claim.tee == 'snp'":                    "undeclared reference",
		"claims.tee":                            "type string, expected bool",
		"claims.snp.vmpl == '0'":                "no matching overload",
		"claims.checks.size() == 0":             "undefined field",
		"claims.tee.matches('(a*)*')":           "undeclared reference",
		"now.getHours('Europe/Berlin') == 1":    "undeclared reference",
		"dyn(claims.tee) == 1":                  "undeclared reference",
		"claims.tee ==":                         "Syntax error",
		"Claims{tee: 'snp'}.tee == 'snp'":       "whatever",
		"true":                                  "true whatever",
		"false":                                 "false whatever",
		"1 < 2":                                 "true whatever",
		"1 / 0 == 1":                            "fails whatever",
		"true || claims.snp.vmpl == 0":          "true whatever",
		"claims.snp.vmpl == 0 || 2 > 1":         "true whatever",
		"claims.snp.vmpl == 0 && size('') == 1": "false whatever",
		"claims.chain.all(a, claims.chain.all(b, claims.chain.all(c, a == c)))":      "nest",
		strings.Repeat("!", 2*MaxExpressionLength) + "true":                          "bytes, at most",
		strings.Repeat("(", 300) + "claims.snp.vmpl == 0" + strings.Repeat(")", 300): "",
	} {
		_, err := c.compile(kbs.Expression{Name: "x", Expression: text}, "")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `expression "x": `) {
			t.Errorf("%.80s: %v, expected %q", text, err, want)
		}
	}
	good := "claims.snp.vmpl == 0"
	for _, e := range []kbs.Expression{{Expression: good}, {Name: "a b", Expression: good}, {Name: "ä", Expression: good},
		{Name: strings.Repeat("a", 65), Expression: good}, {Name: "x", Expression: good, Hint: strings.Repeat("h", maxHintLength+1)}} {
		if _, err := c.compile(e, ""); err == nil {
			t.Errorf("accepted %.80v", e)
		}
	}
}

// TestContingentIsAccepted: nothing that can be both is taken for a constant.
func TestContingentIsAccepted(t *testing.T) {
	c := compiler(t)
	for _, text := range []string{
		"claims.snp.vmpl > 0", "claims.snp.vmpl <= 0", "claims.snp.vmpl == 0 || claims.snp.vmpl == 2", "claims.snp.vmpl > 1 && claims.snp.vmpl < 3",
		"claims.snp.vmpl < 3 && claims.snp.vmpl != 0 && claims.snp.vmpl != 1", "claims.tee == 'a' || claims.tee == 'b'", "claims.tee != 'a' && claims.tee != 'b'",
		"has(claims.snp) ? claims.snp.vmpl == 0 : true", "has(claims.snp) != has(claims.tdx)", "claims.snp.reported_tcb == claims.snp.current_tcb",
		"claims.snp.vmpl - 5 < 0", "-claims.snp.vmpl < 0", "now > timestamp('2026-01-01T00:00:00Z') && now < timestamp('2027-01-01T00:00:00Z')",
	} {
		if _, err := c.compile(kbs.Expression{Name: "x", Expression: text}, ""); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestConstantByLogicIsAccepted: what only the logic of comparisons tells, CEL
// does not. It is accepted, and the one kind refuses all, the other nothing.
func TestConstantByLogicIsAccepted(t *testing.T) {
	c := compiler(t)
	for text, want := range map[string]bool{
		"claims.tee == claims.tee": true, "now == now": true, "claims.snp.vmpl >= 0": true, "claims.snp.vmpl <= 2 || claims.snp.vmpl >= 2": true,
		"claims.tee != 'a' || claims.tee != 'b'": true, "has(claims.snp) || !has(claims.snp)": true, "has(claims.snp) ? true : true": true,
		"claims.tee == 'snp' && claims.tee == 'tdx'": false, "claims.snp.vmpl > 3 && claims.snp.vmpl < 2": false, "claims.snp.vmpl == -1": false,
		"claims.snp.vmpl < 1 && claims.snp.vmpl != 0": false, "has(claims.snp) && !(has(claims.snp) || has(claims.tdx))": false,
	} {
		x, err := c.compile(kbs.Expression{Name: "x", Expression: text}, "")
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if r := x.Apply(snpClaims(), noon); r.Pass != want {
			t.Errorf("%s: %s", text, r.Got)
		}
	}
}

// TestExpensiveExpression: a publisher's most expensive expressions are
// refused at registration or at evaluation, in little time.
func TestExpensiveExpression(t *testing.T) {
	c := compiler(t)
	claims := tdxClaims()
	claims.TDX.EventLog = &verifier.EventLogClaims{Events: make([]verifier.EventClaim, 256)}
	list := "[" + strings.Repeat("1,", 500) + "1]"
	for _, text := range []string{
		"claims.tdx.event_log.events.all(a, claims.tdx.event_log.events.all(b, a.digest == b.digest))",
		list + ".all(a, " + list + ".all(b, a + b > claims.tdx.pce_svn))",
		"claims.tdx.event_log.events.map(a, claims.tdx.event_log.events.map(b, a.type + b.type)).size() == 256",
		"claims.tdx.fmspc + " + strings.Repeat("claims.tdx.fmspc + ", 80) + "'' == ''",
	} {
		start := time.Now()
		x, err := c.compile(kbs.Expression{Name: "x", Expression: text}, "")
		if err != nil {
			if time.Since(start) > time.Minute {
				t.Errorf("%.60s: compiling took %s", text, time.Since(start))
			}
			continue
		}
		start = time.Now()
		r := x.Apply(claims, noon)
		if r.Pass || time.Since(start) > time.Minute {
			t.Errorf("%.60s: %s after %s", text, r.Got, time.Since(start))
		}
		t.Logf("%.60s: %.80s after %s", text, r.Got, time.Since(start))
	}
}
