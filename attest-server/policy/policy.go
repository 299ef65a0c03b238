// Package policy is the rules that hold beside a workload's own: those of the
// server and of its tenant, merged so that the strictest wins, and expressions
// (CEL) over claims at all three levels. What can never match, and what
// refuses nothing, is an error when it is loaded.
package policy

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// Parse reads a policy file: JSON as kbs.DecodeStrict takes it. What it asks
// for is left to Check.
func Parse(b []byte) (kbs.Policy, error) {
	var p kbs.Policy
	if err := kbs.DecodeStrict(bytes.NewReader(b), kbs.MaxPolicyBody, &p); err != nil {
		return kbs.Policy{}, fmt.Errorf("reading policy: %w", err)
	}
	return p, nil
}

// Check refuses a policy that asks for nothing, could never match, or names
// what does not exist.
func (c *Compiler) Check(p kbs.Policy, now time.Time) error {
	if p.IsZero() {
		return errors.New("policy is empty: it would refuse nothing; to have none, leave it out")
	}
	if p.NotAfter != nil && !p.NotAfter.After(now) {
		return fmt.Errorf("not_after %s is past: nothing could match", p.NotAfter.UTC().Format(time.RFC3339))
	}
	if p.SNP != nil {
		if err := verifier.CheckSNPRules(p.SNP); err != nil {
			return fmt.Errorf("snp: %w", err)
		}
	}
	if p.TDX != nil {
		if err := verifier.CheckTDXRules(p.TDX); err != nil {
			return fmt.Errorf("tdx: %w", err)
		}
	}
	if p.VTPM != nil {
		if err := verifier.CheckVTPMRules(p.VTPM); err != nil {
			return fmt.Errorf("vtpm: %w", err)
		}
	}
	return c.CheckExpressions(p.CEL)
}

// CheckExpressions compiles each and refuses two of one name.
func (c *Compiler) CheckExpressions(list []kbs.Expression) error {
	_, err := c.compileAll(list, "")
	return err
}

func (c *Compiler) compileAll(list []kbs.Expression, level string) ([]verifier.Expression, error) {
	if len(list) > MaxExpressions {
		return nil, fmt.Errorf("cel: %d expressions, at most %d allowed", len(list), MaxExpressions)
	}
	var all []verifier.Expression
	seen := map[string]bool{}
	for _, e := range list {
		x, err := c.compile(e, level)
		if err != nil {
			return nil, fmt.Errorf("cel: %w", err)
		}
		if seen[e.Name] {
			return nil, fmt.Errorf("cel: two expressions are named %q", e.Name)
		}
		seen[e.Name] = true
		all = append(all, x)
	}
	return all, nil
}

// CheckDefaults is Check for a server's or a tenant's policy, which holds for
// many workloads: what identifies one has no place in it, and a section must
// refuse something.
func (c *Compiler) CheckDefaults(p kbs.Policy, now time.Time) error {
	if err := c.Check(p, now); err != nil {
		return err
	}
	if own := ownFields(p); own != "" {
		return fmt.Errorf("%s belongs to one workload's registration: a policy for all cannot set it; an expression (cel) can ask for it", own)
	}
	if p.SNP != nil && reflect.DeepEqual(*p.SNP, permissiveSNP()) {
		return errors.New("snp allows everything and asks for nothing: it would refuse nothing")
	}
	return nil
}

// permissiveSNP is the section that refuses nothing.
func permissiveSNP() kbs.SNPRules {
	return kbs.SNPRules{AllowDebug: true, AllowMigrateMA: true, AllowProvisional: true, AllowCXL: true, AllowAdvisories: []string{advisory.Any}}
}

// permissiveTDX allows all but statuses, which can only be allowed by name.
func permissiveTDX() kbs.TDXRules {
	return kbs.TDXRules{AllowDebug: true, AllowMigration: true, AllowPerfMon: true, AllowAdvisories: []string{advisory.Any}}
}

// ownFields names a field of p that only a workload's own rules may have.
func ownFields(p kbs.Policy) string {
	switch s, t := p.SNP, p.TDX; {
	case p.VTPM != nil:
		return "vtpm"
	case s != nil && s.VMPL != 0:
		return "snp.vmpl"
	case s != nil && s.HostData != "":
		return "snp.host_data"
	case t != nil && len(t.RTMRs) > 0:
		return "tdx.rtmrs"
	case t != nil && t.MRConfigID != "":
		return "tdx.mr_config_id"
	case t != nil && t.MROwner != "":
		return "tdx.mr_owner"
	case t != nil && t.MROwnerConfig != "":
		return "tdx.mr_owner_config"
	}
	return ""
}

// Apply puts the file p in place of the rules of ref, section by section, and
// adds its expressions.
func Apply(ref kbs.ReferenceValues, p kbs.Policy) kbs.ReferenceValues {
	if p.SNP != nil {
		ref.SNP = p.SNP
	}
	if p.TDX != nil {
		ref.TDX = p.TDX
	}
	if p.VTPM != nil {
		ref.VTPM = p.VTPM
	}
	ref.CEL = append(ref.CEL[:len(ref.CEL):len(ref.CEL)], p.CEL...)
	return ref
}

// Agree refuses policies that no workload could satisfy together.
func Agree(parts ...Part) error {
	for _, tee := range []kbs.TEE{kbs.SNP, kbs.TDX} {
		snp, tdx := permissiveSNP(), permissiveTDX()
		ref := kbs.ReferenceValues{TEE: tee, SNP: &snp, TDX: &tdx}
		if _, err := Merge(ref, parts...); err != nil {
			return err
		}
	}
	return nil
}
