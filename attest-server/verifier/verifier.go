// Package verifier answers two questions and keeps them apart: is this
// Evidence authentic (Verify: Evidence and Endorsements in, Claims out), and
// is it what was registered (Appraise: Claims and Reference Values in, an
// AttestationResult out). Verify never touches the network; Appraise is pure.
package verifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Verifier decides whether Evidence is authentic as of the given time, and if
// so decodes it. It says nothing of whether the claims are acceptable. An
// error about the Evidence or its Endorsements is an *Error, which names the
// failed check; any other error means that no answer could be had.
type Verifier interface {
	Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*Claims, error)
}

// Error is a refusal by Verify: the check that failed, in the form that
// Appraise reports its rules, so that both can be shown alike.
type Error struct {
	Rule Rule // Pass is false
	Err  error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("evidence not authentic: %s: expected %s, got %s", e.Rule.Rule, e.Rule.Expected, e.Rule.Got)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Hint is the next step for whoever owns the workload.
func (e *Error) Hint() string { return e.Rule.Hint }

// Result is e as the AttestationResult it amounts to: one failed rule, no
// claims, because nothing in the Evidence can be believed.
func (e *Error) Result(tee kbs.TEE) AttestationResult {
	r := e.Rule
	if e.Err != nil {
		r.Got += " (" + e.Err.Error() + ")"
	}
	return AttestationResult{TEE: tee, Result: Contraindicated, Rules: []Rule{r}}
}

func refuse(rule, expected, got, hint string, err error) error {
	return &Error{Rule: Rule{Rule: rule, Expected: expected, Got: got, Hint: hint}, Err: err}
}

// ruleOf is the rule that err names, if any.
func ruleOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Rule.Rule
	}
	return ""
}

// ByTEE is a Verifier that hands Evidence to the one for its TEE. A TEE that
// is not in the map is refused.
type ByTEE map[kbs.TEE]Verifier

// Verify implements Verifier.
func (m ByTEE) Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*Claims, error) {
	v, ok := m[ev.TEE]
	if !ok || v == nil {
		return nil, refuse("tee", "a TEE this verifier trusts", fmt.Sprintf("%q", ev.TEE),
			"the evidence is of a TEE that this server does not accept", nil)
	}
	return v.Verify(ctx, ev, at)
}
