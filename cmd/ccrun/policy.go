package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/trial"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

// readPolicy reads a policy file and refuses one that nothing could match, or
// that says nothing.
func readPolicy(c *cli.Context, name string) (kbs.Policy, error) {
	var p kbs.Policy
	if err := readStrict(c, name, &p); err != nil {
		return p, err
	}
	compiler, err := policy.NewCompiler()
	if err != nil {
		return p, err
	}
	if err := compiler.Check(p, time.Time{}); err != nil { // its not_after is a rule
		return p, face.WithStatus(face.Misused, fmt.Errorf("%s: %w", name, err))
	}
	return p, nil
}

// appraiseUnder appraises with the expressions of ref, and p's not_after.
func appraiseUnder(ref kbs.ReferenceValues, p kbs.Policy, claims *verifier.Claims, want verifier.Expectation) (verifier.AttestationResult, error) {
	c, err := policy.NewCompiler()
	if err != nil {
		return verifier.AttestationResult{}, err
	}
	e, err := c.Effective(ref)
	if err != nil {
		return verifier.AttestationResult{}, face.WithStatus(face.Misused, err)
	}
	if p.NotAfter != nil {
		e = e.Until(*p.NotAfter)
	}
	return e.Appraise(claims, want), nil
}

// ruleFlags are those that withPolicy reads.
func ruleFlags() []cli.Flag {
	return []cli.Flag{policyFlag(), trial.AllowFlag()}
}

// allowedAdvisories is those that ref accepts open.
func allowedAdvisories(ref kbs.ReferenceValues) []string {
	switch {
	case ref.TDX != nil:
		return ref.TDX.AllowAdvisories
	case ref.SNP != nil:
		return ref.SNP.AllowAdvisories
	}
	return nil
}

func policyFlag() cli.Flag {
	return &cli.StringFlag{Name: "policy", Usage: "register with the rules in `FILE`, JSON: {\"snp\":{...},\"tdx\":{...},\"cel\":[...]}"}
}

// withPolicy puts the rules of --policy and --allow-advisory, if given, into ref.
func withPolicy(c *cli.Context, ref kbs.ReferenceValues) (kbs.ReferenceValues, error) {
	name := c.String("policy")
	if name == "" {
		return trial.Allow(c, ref)
	}
	p, err := readPolicy(c, name)
	if err != nil {
		return ref, err
	}
	if p.NotAfter != nil {
		return ref, face.Usagef("--policy %s: not_after is for a server's or a tenant's policy: use --release-until", name)
	}
	if ref.TEE == kbs.TDX && p.SNP != nil || ref.TEE != kbs.TDX && p.TDX != nil {
		program.Log(c).Warn("the policy has rules for another TEE than the workload's: they are left out", "tee", ref.TEE)
		if ref.TEE == kbs.TDX {
			p.SNP = nil
		} else {
			p.TDX = nil
		}
	}
	if p.TDX != nil && ref.TDX != nil && len(p.TDX.RTMRs) == 0 {
		p.TDX.RTMRs = ref.TDX.RTMRs
	}
	return trial.Allow(c, policy.Apply(ref, p))
}

// setRules has the workload registered with the rules of --policy.
func setRules(c *cli.Context, o *workload.Options) (err error) {
	o.Rules, err = withPolicy(c, kbs.ReferenceValues{TEE: o.TEE})
	return err
}

// maxReferenceSize bounds a file of reference values or rules, in bytes.
const maxReferenceSize = 1 << 20

// readStrict decodes the JSON file name, if one is named, into v.
func readStrict(c *cli.Context, name string, v any) error {
	if name == "" {
		return nil
	}
	b, err := face.Read(c, name, maxReferenceSize)
	if errors.Is(err, bounded.ErrTooLarge) {
		return face.WithStatus(face.Misused, err)
	}
	if err != nil {
		return err
	}
	if err := kbs.DecodeStrict(strings.NewReader(string(b)), maxReferenceSize, v); err != nil {
		return hint.With(face.Usagef("reading %s: %w", name, err), "see the field names in a record's reference_values")
	}
	return nil
}
