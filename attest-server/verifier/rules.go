package verifier

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// rules collects the outcome of every check.
type rules []Rule

// add appends a rule; the hint is for those that fail.
func (r *rules) add(name string, pass bool, expected, got, hint string) {
	if pass {
		hint = ""
	}
	*r = append(*r, Rule{Rule: name, Expected: expected, Got: got, Pass: pass, Hint: hint})
}

func (r rules) result(c *Claims) AttestationResult {
	a := AttestationResult{TEE: c.TEE, Result: Affirming, Rules: r, Claims: c}
	if len(r) == 0 || slices.ContainsFunc(r, func(x Rule) bool { return !x.Pass }) {
		a.Result = Contraindicated
	}
	return a
}

// hexRule compares bytes with a reference value in hex; an empty one stands
// for zeros.
func (r *rules) hexRule(name string, got []byte, ref, hint string) {
	expected := ref
	if ref == "" {
		expected = strings.Repeat("0", 2*len(got))
	}
	want, err := hex.DecodeString(expected)
	if err != nil || len(want) != len(got) {
		hint = fmt.Sprintf("the reference value is not %d hex digits", 2*len(got))
	}
	r.add(name, err == nil && len(got) > 0 && slices.Equal(want, got), expected, hex.EncodeToString(got), hint)
}

// oneOf wants got among the reference values in hex; an empty list asks
// nothing if free is set, else zeros.
func (r *rules) oneOf(name string, got Hex, refs []string, free bool, hint string) {
	g := got.String()
	switch {
	case len(refs) > 0:
		pass := !got.IsZero() && slices.ContainsFunc(refs, func(s string) bool { return strings.EqualFold(s, g) })
		r.add(name, pass, strings.Join(refs, " or "), g, hint)
	case free:
		r.add(name, true, "any", g, "")
	default:
		r.add(name, got.IsZero(), "zero", g, hint)
	}
}

// flag wants a bit clear unless it is allowed.
func (r *rules) flag(name string, set, allowed bool, hint string) {
	expected := "off"
	if allowed {
		expected = "on or off"
	}
	r.add(name, !set || allowed, expected, onOff(set), hint)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func quote(t kbs.TEE) string { return fmt.Sprintf("%q", string(t)) }

func ShowTime(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339)
}
