package verifier_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// statusIntel publishes a TDX module of version 1 and statuses for each part,
// with an advisory for whatever is not UpToDate.
type statusIntel struct {
	platform, module, qe string
	edit                 func(tcb, qe map[string]any)
}

func (s statusIntel) collateral(t *testing.T, base *vendortest.Intel) *tdx.Collateral {
	t.Helper()
	n := *base
	n.TCB, n.QE = verifiertest.Generic(t, n.TCBInfo()), verifiertest.Generic(t, n.QEIdentity())
	level := func(svn float64, status, advisory string) map[string]any {
		l := map[string]any{"tcb": map[string]any{"isvsvn": svn}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": status}
		if status != verifier.UpToDate {
			l["advisoryIDs"] = []any{advisory}
		}
		return l
	}
	n.TCB["tdxModuleIdentities"] = []any{map[string]any{"id": "TDX_01", "mrsigner": strings.Repeat("0", 96), "attributes": strings.Repeat("0", 16),
		"attributesMask": strings.Repeat("f", 16), "tcbLevels": []any{level(2, s.module, "INTEL-SA-00002"), level(1, "OutOfDate", "INTEL-SA-00009")}}}
	top := n.TCB["tcbLevels"].([]any)[0].(map[string]any)
	if top["tcbStatus"] = s.platform; s.platform != verifier.UpToDate {
		top["advisoryIDs"] = []any{"INTEL-SA-00001"}
	}
	n.QE["tcbLevels"] = []any{level(4, s.qe, "INTEL-SA-00003")}
	if s.edit != nil {
		s.edit(n.TCB, n.QE)
	}
	return n.Publish(t)
}

// everyStatus is what a registration may accept.
var everyStatus = []string{verifier.UpToDate, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
	verifier.OutOfDate, verifier.OutOfDateConfig, verifier.TDRelaunchAdvised, verifier.TDRelaunchAdvisedConfig}

// TestTDXStatuses: each status of platform, module and quoting enclave, and
// each advisory, passes only by leave of the registration.
func TestTDXStatuses(t *testing.T) {
	n := vendortest.NewIntel(t)
	body := func(edit func(b []byte)) []byte {
		b := strictBody(tdBody15())
		b[1], b[585] = 1, 1 // TDX module 1, SVN 2
		if edit != nil {
			edit(b)
		}
		return b
	}
	module := func(edit func(m map[string]any)) func(tcb, qe map[string]any) {
		return func(tcb, _ map[string]any) { edit(tcb["tdxModuleIdentities"].([]any)[0].(map[string]any)) }
	}
	const up = verifier.UpToDate
	type statuses = []string
	for _, tt := range []struct {
		name                 string
		platform, module, qe string
		allow, advisories    statuses
		edit                 func(tcb, qe map[string]any)
		body                 func(b []byte)
		status, rules        string
	}{
		{name: "all current", platform: up, module: up, qe: up, status: up},
		{name: "platform", platform: "SWHardeningNeeded", module: up, qe: up, status: "SWHardeningNeeded", rules: "tcb_status advisories"},
		{name: "status allowed", platform: "SWHardeningNeeded", module: up, qe: up, allow: statuses{"SWHardeningNeeded"}, status: "SWHardeningNeeded", rules: "advisories"},
		{name: "advisory allowed", platform: "SWHardeningNeeded", module: up, qe: up, advisories: statuses{"INTEL-SA-00001"}, status: "SWHardeningNeeded", rules: "tcb_status"},
		{name: "both allowed", platform: "SWHardeningNeeded", module: up, qe: up, allow: statuses{"SWHardeningNeeded"}, advisories: statuses{"INTEL-SA-00001"}, status: "SWHardeningNeeded"},
		{name: "another advisory allowed", platform: "SWHardeningNeeded", module: up, qe: up, allow: statuses{"SWHardeningNeeded"}, advisories: statuses{"INTEL-SA-00002"}, status: "SWHardeningNeeded", rules: "advisories"},
		{name: "configuration", platform: "ConfigurationNeeded", module: up, qe: up, allow: statuses{"SWHardeningNeeded"}, advisories: statuses{"INTEL-SA-00001"}, status: "ConfigurationNeeded", rules: "tcb_status"},
		{name: "configuration and software", platform: "ConfigurationAndSWHardeningNeeded", module: up, qe: up, allow: statuses{"ConfigurationAndSWHardeningNeeded"}, advisories: statuses{"INTEL-SA-00001"}, status: "ConfigurationAndSWHardeningNeeded"},
		{name: "module", platform: up, module: "OutOfDate", qe: up, advisories: statuses{"INTEL-SA-00002"}, status: "OutOfDate", rules: "tcb_status"},
		{name: "quoting enclave", platform: up, module: up, qe: "OutOfDate", advisories: statuses{"INTEL-SA-00003"}, status: "OutOfDate", rules: "tcb_status"},
		{name: "advisories of all three", platform: "OutOfDate", module: "OutOfDate", qe: "OutOfDate", allow: statuses{"OutOfDate"}, advisories: statuses{"INTEL-SA-00001", "INTEL-SA-00003"}, status: "OutOfDate", rules: "advisories"},
		{name: "platform revoked, though allowed", platform: "Revoked", module: up, qe: up, allow: statuses{"Revoked"}, advisories: statuses{"INTEL-SA-00001"}, status: "Revoked", rules: "tcb_status"},
		{name: "module revoked", platform: up, module: "Revoked", qe: up, allow: statuses{"OutOfDate", "Revoked"}, advisories: statuses{"INTEL-SA-00002"}, status: "Revoked", rules: "tcb_status"},
		{name: "quoting enclave revoked", platform: up, module: up, qe: "Revoked", allow: statuses{"OutOfDate", "Revoked"}, advisories: statuses{"INTEL-SA-00003"}, status: "Revoked", rules: "tcb_status"},
		{name: "a status nobody knows", platform: "Fine", module: up, qe: up, allow: everyStatus, advisories: statuses{"INTEL-SA-00001"}, rules: "collateral"},
		{name: "no status", platform: "", module: up, qe: up, allow: append(everyStatus[:len(everyStatus):len(everyStatus)], ""), advisories: statuses{"INTEL-SA-00001"}, rules: "collateral"},
		{name: "launched on an old module, since updated", platform: up, module: up, qe: up, body: func(b []byte) { b[0] = 1 }, edit: func(tcb, _ map[string]any) { withoutModuleSVN(tcb) },
			advisories: statuses{"INTEL-SA-00009"}, status: "TDRelaunchAdvised", rules: "tcb_status"},
		{name: "launched on a current module, an old one now", platform: up, module: up, qe: up, body: func(b []byte) { b[584] = 1 }, edit: func(tcb, _ map[string]any) { withoutModuleSVN(tcb) },
			status: "OutOfDate", rules: "tcb_status"},
		{name: "module below every level", platform: up, module: up, qe: up, body: func(b []byte) { b[0] = 0 }, edit: func(tcb, _ map[string]any) { withoutModuleSVN(tcb) }, rules: "tdx_module"},
		{name: "module not listed", platform: up, module: up, qe: up, body: func(b []byte) { b[1] = 2 }, rules: "tdx_module"},
		{name: "no modules listed", platform: up, module: up, qe: up, edit: func(tcb, _ map[string]any) { delete(tcb, "tdxModuleIdentities") }, rules: "tdx_module"},
		{name: "module's signer", platform: up, module: up, qe: up, edit: module(func(m map[string]any) { m["mrsigner"] = strings.Repeat("1", 96) }), rules: "mr_signer_seam"},
		{name: "module's attributes", platform: up, module: up, qe: up, edit: module(func(m map[string]any) { m["attributes"] = "0100000000000000" }), rules: "seam_attributes"},
		{name: "module's signer of another size", platform: up, module: up, qe: up, edit: module(func(m map[string]any) { m["mrsigner"] = "00" }), rules: "collateral"},
		{name: "no levels", platform: up, module: up, qe: up, edit: func(tcb, _ map[string]any) { tcb["tcbLevels"] = []any{} }, rules: "tcb_level"},
		{name: "15 components", platform: up, module: up, qe: up, edit: func(tcb, _ map[string]any) {
			tc := tcb["tcbLevels"].([]any)[0].(map[string]any)["tcb"].(map[string]any)
			tc["sgxtcbcomponents"] = tc["sgxtcbcomponents"].([]any)[:15]
		}, rules: "collateral"},
		{name: "FMSPC in upper case", platform: up, module: up, qe: up, edit: func(tcb, _ map[string]any) { tcb["fmspc"] = strings.ToUpper(verifiertest.FMSPC) }, status: up},
		{name: "TCB info of SGX", platform: up, module: up, qe: up, edit: func(tcb, _ map[string]any) { tcb["id"] = "SGX" }, rules: "collateral"},
		{name: "identity of SGX's enclave", platform: up, module: up, qe: up, edit: func(_, qe map[string]any) { qe["id"] = "QE" }, rules: "collateral"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{statusIntel{tt.platform, tt.module, tt.qe, tt.edit}.collateral(t, n)}})
			if err != nil {
				t.Fatal(err)
			}
			c, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: n.QuoteV5(t, body(tt.body))}, verifiertest.Time)
			if err != nil {
				if tt.rules == "" || verifier.RuleOf(err) != tt.rules {
					t.Fatalf("%v, expected %q", err, tt.rules)
				}
				return
			}
			if c.TDX.TCBStatus != tt.status {
				t.Errorf("status %q (%v), expected %q", c.TDX.TCBStatus, c.TDX.Advisories, tt.status)
			}
			ref, want := strictTD(t)
			ref.TDX.TCBStatus, ref.TDX.AllowAdvisories = slices.Clone(tt.allow), tt.advisories
			if got := verifiertest.Failed(verifier.Appraise(c, ref, want)); got != tt.rules {
				t.Errorf("failed rules %q, expected %q", got, tt.rules)
			}
		})
	}
}

// withoutModuleSVN has the platform's level ask nothing of the module, so that
// the module's own levels decide.
func withoutModuleSVN(tcb map[string]any) {
	tc := tcb["tcbLevels"].([]any)[0].(map[string]any)["tcb"].(map[string]any)
	for i := range 2 {
		tc["tdxtcbcomponents"].([]any)[i].(map[string]any)["svn"] = 0.
	}
}

// TestTDXValidity: the clock an hour or more wrong either way, for each thing
// that can expire.
func TestTDXValidity(t *testing.T) {
	n := vendortest.NewIntel(t)
	v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{n.Publish(t)}})
	if err != nil {
		t.Fatal(err)
	}
	quote := n.Quote(t, strictBody(verifiertest.Body([]byte{0xda})))
	month := verifiertest.Time.AddDate(0, 1, 0)
	for _, tt := range []struct {
		name, rule string
		minutes    int // from month
	}{
		{"an hour before the end", "", -60}, {"a minute after the end", "collateral_validity", 1}, {"an hour after the end", "collateral_validity", 60},
		{"six years later", "certificate_validity", 6 * 366 * 24 * 60}, {"two years before", "certificate_validity", -2 * 366 * 24 * 60},
	} {
		at := month.Add(time.Duration(tt.minutes) * time.Minute)
		if _, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, at); verifier.RuleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
			t.Errorf("%s: %v, expected %q", tt.name, err, tt.rule)
		}
	}
}
