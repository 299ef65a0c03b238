package verifier

import (
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Error is a refusal by Verify: the check that failed, in the form that
// Appraise reports its rules, so that both can be shown alike.
type Error struct {
	Rule Rule // Pass is false
	Err  error
	// Lacking is set if the verifier's own side lacks what it needs to decide:
	// no word on the Evidence, which is refused for now and no longer.
	Lacking bool
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

func Refuse(rule, expected, got, hint string, err error) error {
	return &Error{Rule: Rule{Rule: rule, Expected: expected, Got: got, Hint: hint}, Err: err}
}

// Lack is Refuse for want of something that the verifier should have and no
// guest can bring about: a certificate, a current CRL, the right time.
func Lack(rule, expected, got, hint string, err error) error {
	return &Error{Rule: Rule{Rule: rule, Expected: expected, Got: got, Hint: hint}, Err: err, Lacking: true}
}

// IsLacking says whether err is for want of something on the verifier's side.
func IsLacking(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Lacking
}

// RuleOf is the rule that err names, if any.
func RuleOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Rule.Rule
	}
	return ""
}

// Rule is one check: what was expected, what was found, and for a failed one
// what to do about it.
type Rule = kbs.Rule
