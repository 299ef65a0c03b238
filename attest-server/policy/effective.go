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

// alone is ref with the rules of p in place of its own, as far as they go.
func alone(ref kbs.ReferenceValues, p Part) (level, bool) {
	ref.CEL = nil
	switch {
	case ref.TEE == kbs.TDX && p.Policy.TDX != nil:
		own, rules := orEmpty(ref.TDX), *p.Policy.TDX
		rules.RTMRs, rules.MRConfigID, rules.MROwner, rules.MROwnerConfig = own.RTMRs, own.MRConfigID, own.MROwner, own.MROwnerConfig
		ref.TDX = &rules
	case ref.TEE != kbs.TDX && p.Policy.SNP != nil:
		own, rules := orEmpty(ref.SNP), *p.Policy.SNP
		rules.VMPL, rules.HostData = own.VMPL, own.HostData
		ref.SNP = &rules
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
	if result.OK() {
		return result
	}
	want.Expressions = nil
	failures := map[string][]string{}
	for _, l := range e.alone {
		for _, r := range verifier.Appraise(c, l.reference, want).Failed() {
			if k := key(r); !slices.Contains(failures[k], l.name) {
				failures[k] = append(failures[k], l.name)
			}
		}
	}
	for i, r := range result.Rules {
		if r.Pass || r.Level != "" || strings.HasPrefix(r.Rule, "cel:") {
			continue
		}
		switch {
		case shared(r.Rule):
			result.Rules[i].Level = strings.Join(failures[key(r)], ", ")
		case workloads(r.Rule):
			result.Rules[i].Level = kbs.LevelWorkload
		}
	}
	return result
}

// key tells rules of one name apart, of which minimum_tcb has one for each
// component.
func key(r verifier.Rule) string {
	component, _, _ := strings.Cut(r.Expected, "at least ")
	if r.Rule != "minimum_tcb" {
		component = ""
	}
	return r.Rule + " " + component
}

// shared says whether every level can set the rule.
func shared(rule string) bool {
	return strings.HasPrefix(rule, "platform_info_") || slices.Contains([]string{
		"debug", "migrate_ma", "migration_agent", "cxl", "smt", "abi_minimum", "id_key_digest", "author_key_digest", "guest_svn",
		"provisional_firmware", "minimum_tcb", "product", "product_names", "signer", "chip_id",
		"migratable", "perfmon", "sept_ve_disable", "xfam", "mr_seam", "mr_service_td", "tcb_status", "advisories", "minimum_tee_tcb",
	}, rule)
}

// workloads says whether only a registration can set the rule.
func workloads(rule string) bool {
	return strings.HasPrefix(rule, "rtmr") || strings.HasPrefix(rule, "pcr") || slices.Contains([]string{
		"tee", "measurement", "mrtd", "vmpl", "host_data", "mr_config_id", "mr_owner", "mr_owner_config", "vtpm",
	}, rule)
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
			rules.RTMRs = map[string]string{}
			for i, r := range claims.TDX.RTMRs {
				rules.RTMRs[strconv.Itoa(i)] = r.String()
			}
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
