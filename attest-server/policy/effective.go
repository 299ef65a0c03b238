package policy

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// Effective is all that is asked of one workload's Evidence, at every level.
// It is safe for concurrent use.
type Effective struct {
	reference   kbs.ReferenceValues
	expressions []verifier.Expression
	alone       []level // what each level asks, without expressions
}

type level struct {
	name      string
	reference kbs.ReferenceValues
}

// Effective merges and compiles. An error, always a *LevelError, says that
// nothing could match, or that an expression is none.
func (c *Compiler) Effective(ref kbs.ReferenceValues, parts ...Part) (*Effective, error) {
	e := &Effective{}
	for _, p := range parts {
		list, err := c.compileAll(p.Policy.CEL, p.Level)
		if err != nil {
			return nil, &LevelError{p.Level, err}
		}
		e.expressions = append(e.expressions, list...)
		if p.Policy.NotAfter != nil {
			e.expressions = append(e.expressions, expiry{p.Level, *p.Policy.NotAfter})
		}
		if l, ok := alone(ref, p); ok {
			e.alone = append(e.alone, l)
		}
	}
	list, err := c.compileAll(ref.CEL, kbs.LevelWorkload)
	if err != nil {
		return nil, &LevelError{kbs.LevelWorkload, err}
	}
	e.expressions = append(e.expressions, list...)
	ref.CEL = nil
	e.alone = append(e.alone, level{kbs.LevelWorkload, ref})
	if e.reference, err = Merge(ref, parts...); err != nil {
		return nil, err
	}
	return e, nil
}

// alone is ref with the rules of p in place of its own.
func alone(ref kbs.ReferenceValues, p Part) (level, bool) {
	ref.CEL = nil
	switch {
	case ref.TEE == kbs.TDX && p.Policy.TDX != nil:
		ref.TDX = p.Policy.TDX
	case ref.TEE != kbs.TDX && p.Policy.SNP != nil:
		ref.SNP = p.Policy.SNP
	default:
		return level{}, false
	}
	return level{p.Level, ref}, true
}

// Appraise is verifier.Appraise of everything that is asked. Failed rules say
// which levels asked for what was not found.
func (e *Effective) Appraise(c *verifier.Claims, want verifier.Expectation) verifier.AttestationResult {
	want.Expressions = e.expressions
	result := verifier.Appraise(c, e.reference, want)
	if result.OK() || c == nil {
		return result
	}
	want.Expressions = nil
	asked := e.whoAsked(c, want)
	for i, r := range result.Rules {
		if !r.Pass && r.Level == "" {
			result.Rules[i].Level = strings.Join(asked[ruleID(r)], ", ")
		}
	}
	return result
}

// whoAsked tries each level alone: the levels that refuse are those that asked.
// What identifies the workload is asked for by its own level only, so the others
// are tried with the claims' own identity. What even the most permissive policy
// refuses, nobody asked for: that rule always holds.
func (e *Effective) whoAsked(c *verifier.Claims, want verifier.Expectation) map[string][]string {
	always := failures(c, identifiedBy(c, mostPermissive(c)), want)
	asked := map[string][]string{}
	for _, l := range e.alone {
		ref := l.reference
		if l.name != kbs.LevelWorkload {
			ref = identifiedBy(c, ref)
		}
		for id := range failures(c, ref, want) {
			if !always[id] {
				asked[id] = append(asked[id], l.name)
			}
		}
	}
	return asked
}

func failures(c *verifier.Claims, ref kbs.ReferenceValues, want verifier.Expectation) map[string]bool {
	failed := map[string]bool{}
	for _, r := range verifier.Appraise(c, ref, want).Failed() {
		failed[ruleID(r)] = true
	}
	return failed
}

// ruleID tells rules of one name apart, of which minimum_tcb has one for each
// component.
func ruleID(r verifier.Rule) string {
	component, _, _ := strings.Cut(r.Expected, "at least ")
	if r.Rule != "minimum_tcb" {
		component = ""
	}
	return r.Rule + " " + component
}

// mostPermissive allows whatever a policy can allow these claims.
func mostPermissive(c *verifier.Claims) kbs.ReferenceValues {
	snp, tdx := permissiveSNP(), permissiveTDX()
	if c.TDX != nil {
		tdx.TCBStatus = []string{c.TDX.TCBStatus}
	}
	return kbs.ReferenceValues{SNP: &snp, TDX: &tdx}
}

// identifiedBy is ref with what identifies a workload taken from the claims.
func identifiedBy(c *verifier.Claims, ref kbs.ReferenceValues) kbs.ReferenceValues {
	ref.TEE, ref.Measurements, ref.VTPM = c.TEE, []kbs.Measurement{{LaunchDigest: c.LaunchDigest}}, nil
	if c.SNP != nil {
		rules := orEmpty(ref.SNP)
		rules.VMPL, rules.HostData = c.SNP.VMPL, c.SNP.HostData.String()
		ref.SNP = &rules
	}
	if c.TDX != nil {
		rules := orEmpty(ref.TDX)
		rules.RTMRs = rtmrs(c.TDX)
		rules.MRConfigID, rules.MROwner, rules.MROwnerConfig = c.TDX.MRConfigID.String(), c.TDX.MROwner.String(), c.TDX.MROwnerConfig.String()
		ref.TDX = &rules
	}
	if c.VTPM != nil {
		ref.VTPM = &kbs.VTPMRules{PCRs: map[string]string{}}
		for i, pcr := range c.VTPM.PCRs {
			ref.VTPM.PCRs[strconv.Itoa(i)] = pcr.String()
		}
	}
	return ref
}

func rtmrs(c *verifier.TDXClaims) map[string]string {
	all := map[string]string{}
	for i, r := range c.RTMRs {
		all[strconv.Itoa(i)] = r.String()
	}
	return all
}

// expiry is a policy's NotAfter as a rule.
type expiry struct {
	level string
	at    time.Time
}

// Apply implements verifier.Expression.
func (x expiry) Apply(_ *verifier.Claims, at time.Time) verifier.Rule {
	r := verifier.Rule{Rule: "policy_not_after", Expected: "before " + x.at.UTC().Format(time.RFC3339), Got: at.UTC().Format(time.RFC3339), Pass: at.Before(x.at)}
	if !r.Pass {
		r.Hint, r.Level = "the policy must be renewed: nothing is accepted until then", x.level
	}
	return r
}

// Alone is p as the only policy, with what identifies a workload taken from
// the claims themselves where p does not say it: for trying p out.
func (c *Compiler) Alone(p kbs.Policy, claims *verifier.Claims) (*Effective, error) {
	ref := Apply(kbs.ReferenceValues{TEE: claims.TEE, Measurements: []kbs.Measurement{{LaunchDigest: claims.LaunchDigest}}}, p)
	if claims.TDX != nil {
		rules := orEmpty(ref.TDX)
		if len(rules.RTMRs) == 0 {
			rules.RTMRs = rtmrs(claims.TDX)
		}
		ref.TDX = &rules
	}
	e, err := c.Effective(ref)
	if err == nil && p.NotAfter != nil {
		e = e.Until(*p.NotAfter)
	}
	return e, err
}

// Until is e that accepts nothing from then on.
func (e *Effective) Until(at time.Time) *Effective {
	c := *e
	c.expressions = append(slices.Clip(c.expressions), expiry{at: at})
	return &c
}
