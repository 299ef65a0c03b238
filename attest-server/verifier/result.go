package verifier

import (
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// Values of AttestationResult.Result, in the words of EAR (AR4SI).
const (
	Affirming       = kbs.Affirming
	Contraindicated = kbs.Contraindicated
)

// AttestationResult is the verdict with every rule that led to it, passed or
// not. Result is Affirming only if there are rules and all of them passed.
type AttestationResult struct {
	TEE    kbs.TEE `json:"tee"`
	Result string  `json:"result"`
	Rules  []Rule  `json:"rules"`
	Claims *Claims `json:"claims,omitempty"`
}

// OK says whether the result is Affirming. The zero value is not.
func (r AttestationResult) OK() bool { return r.Result == Affirming }

// Failed is the rules that did not pass.
func (r AttestationResult) Failed() []Rule {
	var f []Rule
	for _, x := range r.Rules {
		if !x.Pass {
			f = append(f, x)
		}
	}
	return f
}

// Expectation is what the relying party knows of this one attestation.
type Expectation struct {
	ReportData kbs.ReportData // zero is refused
	At         time.Time      // zero is refused
	// RequirePCRs refuses evidence with a vTPM's quote unless PCRs are
	// registered. Whoever releases secrets sets it.
	RequirePCRs bool
	// Advisories is what is known to be broken in firmware. nil is refused.
	Advisories *advisory.Table
	// Expressions are applied beside the Reference Values, which must then hold
	// none: a caller that cannot evaluate expressions must refuse them.
	Expressions []Expression
}

// Expression is a rule over claims that is no field of the Reference Values.
// It is pure, and what it cannot decide it refuses.
type Expression interface {
	Apply(c *Claims, at time.Time) Rule
}

// Result is e as the AttestationResult it amounts to: one failed rule, no
// claims, because nothing in the Evidence can be believed.
func (e *Error) Result(tee kbs.TEE) AttestationResult {
	r := e.Rule
	if e.Err != nil {
		r.Got += " (" + e.Err.Error() + ")"
	}
	return AttestationResult{TEE: tee, Result: Contraindicated, Rules: []Rule{r}}
}
