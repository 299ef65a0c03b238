package verifier_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// Quotes under a self-made intel, so that every field can be changed as the
// real one would sign it.

// tdBody15 is verifiertest.Body as of TDX 1.5, the same TCB now as at launch.
func tdBody15() []byte {
	b := verifiertest.Body([]byte{0xda})
	return append(append(b, b[:16]...), make([]byte, 48)...)
}

// strictTD registers all of verifiertest.Body that can be.
func strictTD(t testing.TB) (kbs.ReferenceValues, verifier.Expectation) {
	rules := &kbs.TDXRules{RTMRs: verifiertest.RTMRs(), XFAM: "00000000000000e7", MRSEAM: []string{strings.Repeat("5e", 48)}, RequireSEPTVEDisable: true}
	return kbs.ReferenceValues{TEE: kbs.TDX, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}, TDX: rules},
		verifier.Expectation{ReportData: kbs.ReportData{0xda}, At: verifiertest.Time, Advisories: verifiertest.Advisories(t)}
}

// strictBody makes body what strictTD registers.
func strictBody(body []byte) []byte {
	copy(body[16:], bytes.Repeat([]byte{0x5e}, 48))
	body[120+3] = 1 << 4 // SEPT_VE_DISABLE
	return body
}

// tdHeaderFields is the header of a quote (intel DCAP quoting library, A.3.1).
func tdHeaderFields() []field {
	return []field{
		{"version", 0, 2, []mutation{set("quote_version", 0), set("quote_version", 3), set("quote_version", 6), bit(8, "quote_version")}},
		{"attestation key type", 2, 2, []mutation{set("signature_algorithm", 3), set("signature_algorithm", 0), bit(15, "signature_algorithm")}},
		{"TEE type", 4, 4, []mutation{set("tee", 0), bit(8, "tee"), bit(31, "tee")}},
		{"QE SVN, PCE SVN", 8, 4, each(4, shown)},
		{"QE vendor", 12, 16, each(16, "qe_vendor")},
		{"user data", 28, 20, each(20, shown)},
	}
}

// tdBodyFields is the TD report (A.3.2 and A.3.3), whole. TDX 1.5 has 64 bytes
// more.
func tdBodyFields(tdx15 bool) []field {
	svn := []mutation{set("tdx_module", 2, 1), set("tdx_module", 2, 0xff)} // a module intel does not list
	svn2 := slices.Clone(svn)
	for i := range 16 {
		if i != 1 {
			lower := mutation{fmt.Sprintf("component %d lower", i), "tcb_level", func(b []byte) { b[i]-- }}
			svn, svn2 = append(svn, lower, mutation{fmt.Sprintf("component %d higher", i), shown, func(b []byte) { b[i]++ }}), append(svn2, lower)
		}
	}
	attributes := join([]mutation{bit(0, "debug")}, bits(1, 27, "td_attributes"), []mutation{bit(28, "sept_ve_disable"), bit(29, "migratable"), bit(30, shown), bit(31, shown)},
		bits(32, 62, "td_attributes"), []mutation{bit(63, "perfmon")})
	all := []field{
		{"TEE_TCB_SVN", 0, 16, svn},
		{"MRSEAM", 16, 48, each(48, "mr_seam")},
		{"MRSIGNERSEAM", 64, 48, each(48, "mr_signer_seam")},
		{"SEAMATTRIBUTES", 112, 8, bits(0, 63, "seam_attributes")},
		{"TDATTRIBUTES", 120, 8, attributes},
		{"XFAM", 128, 8, join([]mutation{set("xfam", 0), set(shown, 3)}, bits(8, 63, "xfam"))},
		{"MRTD", 136, 48, each(48, "mrtd")},
		{"MRCONFIGID", 184, 48, each(48, "mr_config_id")},
		{"MROWNER", 232, 48, each(48, "mr_owner")},
		{"MROWNERCONFIG", 280, 48, each(48, "mr_owner_config")},
		{"RTMR0", 328, 48, each(48, "rtmr0")},
		{"RTMR1", 376, 48, each(48, "rtmr1")},
		{"RTMR2", 424, 48, each(48, "rtmr2")},
		{"RTMR3", 472, 48, each(48, "rtmr3")},
		{"REPORTDATA", 520, 64, each(64, "report_data")},
	}
	if tdx15 {
		all = append(all, field{"TEE_TCB_SVN_2", 584, 16, svn2}, field{"MRSERVICETD", 600, 48, each(48, "mr_service_td")})
	}
	return all
}

// qeFields is the quoting enclave's report (SGX REPORT body), whole. What has
// no rule is Intel's enclave's own, and signed by the PCK.
func qeFields() []field {
	return []field{
		{"CPUSVN", 0, 16, each(16, shown)},
		{"MISCSELECT", 16, 4, bits(0, 31, "qe_identity")},
		{"reserved, CONFIGID and so on", 20, 28, each(28, shown)},
		{"ATTRIBUTES", 48, 16, bits(0, 127, "qe_identity")},
		{"MRENCLAVE", 64, 32, each(32, shown)},
		{"reserved", 96, 32, each(32, shown)},
		{"MRSIGNER", 128, 32, each(32, "qe_identity")},
		{"reserved", 160, 96, each(96, shown)},
		{"ISVPRODID", 256, 2, bits(0, 15, "qe_identity")},
		{"ISVSVN", 258, 2, []mutation{set("qe_identity", 3), set("qe_identity", 0), set(shown, 5), set(shown, 4, 1)}},
		{"reserved", 260, 60, each(60, shown)},
		{"REPORTDATA", 320, 64, each(64, "attestation_key")},
	}
}

// tdJudge verifies and appraises quotes of n as strictTD says.
func tdJudge(t *testing.T, n *vendortest.Intel) func(quote []byte) string {
	t.Helper()
	v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{n.Publish(t)}})
	if err != nil {
		t.Fatal(err)
	}
	ref, want := strictTD(t)
	return func(quote []byte) string {
		c, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, verifiertest.Time)
		if err != nil {
			if verifier.RuleOf(err) == "" {
				return err.Error()
			}
			return verifier.RuleOf(err)
		}
		return verifiertest.Failed(verifier.Appraise(c, ref, want))
	}
}

// TestEveryFieldTDX changes every field of header, TD report and quoting
// enclave's report, each time as Intel's keys would sign it: one rule refuses,
// the one for that field. The tables cover every byte.
func TestEveryFieldTDX(t *testing.T) {
	n := vendortest.NewIntel(t)
	judge := tdJudge(t, n)
	total := 0
	run := func(name string, fields []field, size int, quote func(edit func(b []byte)) []byte) {
		if rule := judge(quote(func([]byte) {})); rule != "" {
			t.Fatalf("%s: unchanged: refused by %s", name, rule)
		}
		end := 0
		for _, f := range fields {
			if f.off != end || len(f.changes) == 0 {
				t.Fatalf("%s table: %s begins at %d, expected %d", name, f.name, f.off, end)
			}
			end += f.size
			for _, m := range f.changes {
				total++
				if got := judge(quote(func(b []byte) { m.edit(b[f.off : f.off+f.size]) })); got != m.rule {
					t.Errorf("%s, %s %s: refused by %q, expected %q", name, f.name, m.name, got, m.rule)
				}
			}
		}
		if end != size {
			t.Errorf("%s: the table ends at %d of %d", name, end, size)
		}
	}
	type maker func(t testing.TB, body []byte) []byte
	for _, x := range []struct {
		name string
		make maker
		body func() []byte
	}{
		{"v4", n.Quote, func() []byte { return strictBody(verifiertest.Body([]byte{0xda})) }},
		{"v5, TDX 1.0", n.QuoteV5, func() []byte { return strictBody(verifiertest.Body([]byte{0xda})) }},
		{"v5, TDX 1.5", n.QuoteV5, func() []byte { return strictBody(tdBody15()) }},
	} {
		size := len(x.body())
		run(x.name+" body", tdBodyFields(size > verifiertest.BodyBytes), size, func(edit func([]byte)) []byte {
			body := x.body()
			edit(body)
			return x.make(t, body)
		})
		inside := func(pick func(header, qe []byte) []byte) func(edit func([]byte)) []byte {
			return func(edit func([]byte)) []byte {
				n.EditQuote = func(header, qe []byte) { edit(pick(header, qe)) }
				defer func() { n.EditQuote = nil }()
				return x.make(t, x.body())
			}
		}
		if x.name == "v5, TDX 1.0" {
			continue // header and enclave are as in the others
		}
		run(x.name+" header", tdHeaderFields(), 48, inside(func(h, _ []byte) []byte { return h }))
		run(x.name+" QE report", qeFields(), 384, inside(func(_, q []byte) []byte { return q }))
	}
	t.Logf("%d changes to TD quotes", total)
}

// TestTDXEveryByteUnsigned flips every byte of quotes without signing them
// anew: all are refused. What follows a quote is not part of it.
func TestTDXEveryByteUnsigned(t *testing.T) {
	n := vendortest.NewIntel(t)
	judge := tdJudge(t, n)
	total := 0
	for name, quote := range map[string][]byte{
		"v4": n.Quote(t, strictBody(verifiertest.Body([]byte{0xda}))), "v5, TDX 1.0": n.QuoteV5(t, strictBody(verifiertest.Body([]byte{0xda}))),
		"v5, TDX 1.5": n.QuoteV5(t, strictBody(tdBody15())),
	} {
		if rule := judge(quote); rule != "" {
			t.Fatalf("%s: unchanged: refused by %s", name, rule)
		}
		chain := bytes.Index(quote, []byte("-----BEGIN"))
		for i := range quote {
			if i > chain && name != "v4" {
				break // the same chain, and each byte costs a check of it
			}
			m := bytes.Clone(quote)
			m[i] ^= 1 << (i % 8)
			if i > chain && bytes.Equal(chainDER(m[chain:]), chainDER(quote[chain:])) {
				continue // the spare bits of base64's last character
			}
			total++
			if judge(m) == "" {
				t.Errorf("%s: byte %#x %q changed to %q and accepted", name, i, quote[i], m[i])
			}
		}
		for size := range quote {
			if size > chain && size%64 != 0 {
				continue
			}
			total++
			if rule := judge(quote[:size]); rule != "evidence_format" {
				t.Errorf("%s: the first %d bytes: refused by %q", name, size, rule)
			}
		}
		if rule := judge(append(bytes.Clone(quote), make([]byte, 1000)...)); rule != "" {
			t.Errorf("%s: with a driver's buffer behind it: refused by %s", name, rule)
		}
	}
	t.Logf("%d changes to TD quotes not signed anew", total)
}

// chainDER is what the certificates of a PEM chain say.
func chainDER(chain []byte) []byte {
	var der []byte
	for b, rest := pem.Decode(chain); b != nil; b, rest = pem.Decode(rest) {
		der = append(der, b.Bytes...)
	}
	return der
}

// collateralRules is the rule that refuses a change to each member of TCB info
// and QE identity, signed anew; shown marks those that say nothing of whether
// the platform is good. A member that is not here fails the test.
var collateralRules = map[string]string{
	"tcb.id": "collateral", "tcb.version": "collateral", "tcb.issueDate": shown, "tcb.nextUpdate": "collateral_validity", "tcb.fmspc": "collateral",
	"tcb.pceId": "collateral", "tcb.tcbType": "collateral", "tcb.tcbEvaluationDataNumber": shown,
	"tcb.tdxModule.mrsigner": "mr_signer_seam", "tcb.tdxModule.attributes": "seam_attributes", "tcb.tdxModule.attributesMask": shown,
	"tcb.tcbLevels[].tcb.sgxtcbcomponents[].svn": "tcb_level", "tcb.tcbLevels[].tcb.pcesvn": "tcb_level", "tcb.tcbLevels[].tcb.tdxtcbcomponents[].svn": "tcb_level",
	"tcb.tcbLevels[].tcbDate": shown, "tcb.tcbLevels[].tcbStatus": "tcb_status",
	"qe.id": "collateral", "qe.version": "collateral", "qe.issueDate": shown, "qe.nextUpdate": "collateral_validity", "qe.tcbEvaluationDataNumber": shown,
	"qe.miscselect": "qe_identity", "qe.miscselectMask": shown, "qe.attributes": "qe_identity", "qe.attributesMask": shown, "qe.mrsigner": "qe_identity",
	"qe.isvprodid": "qe_identity", "qe.tcbLevels[].tcb.isvsvn": "qe_identity", "qe.tcbLevels[].tcbDate": shown, "qe.tcbLevels[].tcbStatus": "tcb_status",
}

// changedLeaf is a value other than v of the same shape, the one that asks for
// more where it is a number.
func changedLeaf(path string, v any) any {
	switch v := v.(type) {
	case float64:
		return v + 1
	case string:
		switch {
		case strings.HasSuffix(path, "Status"):
			return "OutOfDate"
		case strings.HasSuffix(path, "nextUpdate"):
			return "2026-01-01T00:00:00Z"
		case strings.HasSuffix(path, "issueDate"), strings.HasSuffix(path, "tcbDate"):
			return "2026-02-01T00:00:00Z"
		case strings.HasSuffix(path, "Mask"):
			return strings.Repeat("0", len(v))
		case strings.HasSuffix(path, "id"):
			return v + "X"
		}
		return "1" + v[1:]
	}
	return v
}

// TestEveryFieldCollateral changes every member of TCB info and QE identity,
// signed anew, and every member of the collateral, not signed anew.
func TestEveryFieldCollateral(t *testing.T) {
	n := vendortest.NewIntel(t)
	quote := n.Quote(t, strictBody(verifiertest.Body([]byte{0xda})))
	total, seen := 0, map[string]bool{}
	for name, doc := range map[string]*map[string]any{"tcb": &n.TCB, "qe": &n.QE} {
		*doc = verifiertest.Generic(t, *doc)
		verifiertest.Leaves(name, *doc, func(path string, v any, set func(any)) {
			rule, known := collateralRules[path]
			if !known {
				t.Errorf("%s is not in the table", path)
			}
			seen[path] = true
			set(changedLeaf(path, v))
			defer set(v)
			total++
			if got := tdJudge(t, n)(quote); got != rule {
				t.Errorf("%s changed: refused by %q, expected %q", path, got, rule)
			}
		})
	}
	for path := range collateralRules {
		if !seen[path] {
			t.Errorf("%s is in the table, not in the collateral", path)
		}
	}
	good := n.Publish(t)
	for i := range reflect.TypeFor[tdx.Collateral]().NumField() {
		for _, edit := range []func(s string) string{func(string) string { return "" }, func(s string) string { return s[:len(s)-8] },
			func(s string) string { return s[:len(s)/2] + "!" + s[len(s)/2+1:] }} {
			c := *good
			f := reflect.ValueOf(&c).Elem().Field(i)
			f.SetString(edit(f.String()))
			v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{&c}})
			if err != nil {
				t.Fatal(err)
			}
			total++
			if _, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, verifiertest.Time); verifier.RuleOf(err) != "collateral" {
				t.Errorf("%s changed: %v, expected a refusal by collateral", reflect.TypeFor[tdx.Collateral]().Field(i).Name, err)
			}
		}
	}
	t.Logf("%d changes to collateral", total)
}
