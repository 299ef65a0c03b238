package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// fact is a name and its value.
type fact struct{ Name, Value string }

// step is one link from the vendor's root to the key: why the one after it
// can be believed.
type step struct {
	Title string
	Text  string
	State string // pass, fail or open: not reached
	Label string // of State, if not the usual one
	Facts []fact
	Rules []kbs.Rule
}

type explanation struct {
	kbs.SessionRecord
	Outcome outcome
	Failed  []kbs.Rule
	Steps   []step
}

// What the rules say of the session and of the registration; all others judge
// the Evidence itself.
var (
	bindingRules = map[string]bool{
		"session_nonce": true, "session_tee": true, "tee_key": true, "runtime_data": true, "report_data": true,
	}
	registrationRules = map[string]bool{
		"registered": true, "not_revoked": true, "registered_tee": true, "registered_type": true, "workload_id": true,
		"identity_digest": true, "footer_digest": true,
	}
)

// explain tells a session's story in the order of trust.
func explain(rec kbs.SessionRecord) explanation {
	e := explanation{SessionRecord: rec, Outcome: outcomeOf(rec)}
	var c verifier.Claims
	authentic := len(rec.Result.Claims) > 0 && json.Unmarshal(rec.Result.Claims, &c) == nil
	var binding, registration, rest []kbs.Rule
	for _, r := range rec.Result.Rules {
		switch {
		case r.Rule == "appraisal": // sums up others
			continue
		case authentic && slices.Contains(c.Checks, r): // shown with the Evidence
			continue
		case bindingRules[r.Rule]:
			binding = append(binding, r)
		case registrationRules[r.Rule]:
			registration = append(registration, r)
		default:
			rest = append(rest, r)
		}
		if !r.Pass {
			e.Failed = append(e.Failed, r)
		}
	}
	for i, cert := range c.Chain {
		e.Steps = append(e.Steps, certificateStep(cert, i, len(c.Chain)))
	}
	e.Steps = append(e.Steps, evidenceStep(rec, c, authentic, rest))
	e.Steps = append(e.Steps,
		ruleStep("Binding", "REPORT_DATA in the Evidence ties it to this session's nonce and to a key that only this guest has: it is neither replayed nor another's.",
			authentic, binding, fact{"REPORT_DATA", zeroAsNone(c.ReportData.String(), authentic)}),
		ruleStep("Registration", "The guest says it is a workload that an owner registered and nobody revoked.", authentic, registration, fact{"Workload", rec.WorkloadID}))
	if authentic {
		e.Steps = append(e.Steps, ruleStep("Appraisal", "What was measured is what was registered, and the platform is in a state its owner accepts.", true, rest))
	}
	e.Steps = append(e.Steps, releaseStep(rec))
	return e
}

func zeroAsNone(s string, there bool) string {
	if !there || strings.Trim(s, "0") == "" {
		return "none"
	}
	return s
}

func certificateStep(c verifier.Certificate, i, n int) step {
	s := step{State: "pass", Title: "Intermediate certificate", Text: "Signed by the certificate above."}
	switch i {
	case 0:
		s.Title, s.Text = "Vendor root", "Pinned by this server. Everything below rests on it."
	case n - 1:
		s.Title, s.Text = "Platform certificate", "The vendor's word for the key that signed the Evidence: it is inside a genuine chip."
	}
	s.Facts = []fact{{"Subject", c.Subject}, {"SHA-256", c.SHA256}, {"Valid", day(c.NotBefore) + " to " + day(c.NotAfter)}}
	return s
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func evidenceStep(rec kbs.SessionRecord, c verifier.Claims, authentic bool, rules []kbs.Rule) step {
	if !authentic {
		s := ruleStep("Evidence", "The Evidence could not be traced to a vendor root. Nothing in it can be believed.", true, rules)
		if s.State = "fail"; len(rules) == 0 {
			s.State = "open"
			s.Text = "The Evidence was not looked at: the session's own rules failed before."
		}
		return s
	}
	s := step{Title: "Evidence", State: "pass", Text: "Signed by the platform's key: these are the hardware's words, not the host's.", Rules: c.Checks}
	s.Facts = append(s.Facts, fact{"TEE", strings.ToUpper(string(rec.Result.TEE))})
	if !c.LaunchDigest.IsZero() {
		s.Facts = append(s.Facts, fact{"Launch digest", c.LaunchDigest.String()})
	}
	switch {
	case c.SNP != nil:
		s.Facts = append(s.Facts, fact{"Product", c.SNP.Product + ", signed by " + c.SNP.Signer}, fact{"VMPL", fmt.Sprint(c.SNP.VMPL)},
			fact{"Reported TCB", fmt.Sprintf("bootloader %d, TEE %d, SNP %d, microcode %d", c.SNP.ReportedTCB.Bootloader, c.SNP.ReportedTCB.TEE, c.SNP.ReportedTCB.SNP, c.SNP.ReportedTCB.Microcode)})
	case c.TDX != nil:
		s.Facts = append(s.Facts, fact{"FMSPC", c.TDX.FMSPC}, fact{"TCB status", c.TDX.TCBStatus})
	}
	return s
}

func ruleStep(title, text string, reached bool, rules []kbs.Rule, facts ...fact) step {
	s := step{Title: title, Text: text, State: "pass", Rules: rules, Facts: facts}
	if !reached || len(rules) == 0 {
		s.State = "open"
	}
	if slices.ContainsFunc(rules, func(r kbs.Rule) bool { return !r.Pass }) {
		s.State = "fail"
	}
	// What failed comes first.
	slices.SortStableFunc(s.Rules, func(a, b kbs.Rule) int {
		switch {
		case a.Pass == b.Pass:
			return 0
		case b.Pass:
			return -1
		}
		return 1
	})
	return s
}

func releaseStep(rec kbs.SessionRecord) step {
	switch {
	case !rec.Granted && rec.Result.Confirmed():
		return step{Title: "Disk key", State: "fail", Label: "kept", Text: "Not released: this VM has confirmed that its disk opened. Its agent never asks again: look for a break-in."}
	case !rec.Granted && rec.Result.Result == kbs.Undecided:
		return step{Title: "Disk key", State: "open", Label: "waiting", Text: "Not released yet: this server lacks what the failed rule names. The guest asks again."}
	case !rec.Granted:
		return step{Title: "Disk key", State: "fail", Label: "kept", Text: "Not released: at least one rule failed."}
	case rec.Releases == 0:
		return step{Title: "Disk key", State: "open", Label: "not fetched", Text: "Granted. The guest has not fetched it."}
	}
	return step{Title: "Disk key", State: "pass", Label: "released", Text: "Released, sealed to the guest's own key.", Facts: []fact{{"Fetched", fmt.Sprintf("%d×", rec.Releases)}}}
}

// limits lists how often the key may be released, and who must agree.
func limits(r *kbs.ReleaseLimits) []fact {
	var facts []fact
	if r == nil {
		return nil
	}
	if r.Total > 0 {
		facts = append(facts, fact{"Sessions in all", fmt.Sprint(r.Total)})
	}
	if r.PerDay > 0 {
		facts = append(facts, fact{"Sessions a day", fmt.Sprint(r.PerDay)})
	}
	if r.NotAfter != nil {
		facts = append(facts, fact{"Not after", when(*r.NotAfter) + " UTC"})
	}
	if len(r.Approvals) > 0 {
		facts = append(facts, fact{"Approvals of", strings.Join(r.Approvals, ", ")})
	}
	return facts
}

// strictness lists where reference values differ from the strict default.
func strictness(r kbs.ReferenceValues) []fact {
	var facts []fact
	for _, x := range []struct {
		name  string
		rules any
	}{{"snp", r.SNP}, {"tdx", r.TDX}} {
		b, err := json.Marshal(x.rules)
		var m map[string]json.RawMessage
		if err != nil || json.Unmarshal(b, &m) != nil {
			continue
		}
		for _, k := range sortedKeys(m) {
			facts = append(facts, fact{x.name + "." + k, strings.Trim(string(m[k]), `"`)})
		}
	}
	for _, e := range r.CEL {
		facts = append(facts, fact{"cel." + e.Name, e.Expression})
	}
	return facts
}
