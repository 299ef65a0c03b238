package release

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
)

// Checks are rules that were applied.
type Checks []kbs.Rule

// Add adds a rule with its outcome. What the peer sent, got, is cut to a bounded
// length.
func (c *Checks) Add(name string, pass bool, expected, got, hint string) {
	if pass {
		hint = ""
	}
	*c = append(*c, kbs.Rule{Rule: name, Expected: expected, Got: clip(got), Pass: pass, Hint: hint})
}

// take adds the verifier's rules.
func (c *Checks) take(rules []verifier.Rule) {
	for _, r := range rules {
		r.Got = clip(r.Got)
		*c = append(*c, r)
	}
}

// passed says whether there are rules, and none failed.
func (c Checks) passed() bool {
	return len(c) > 0 && !slices.ContainsFunc(c, func(r kbs.Rule) bool { return !r.Pass })
}

// Request is what a guest shows, decoded by its dialect.
type Request struct {
	// Checks are about the session and the guest's key. If one failed, nothing
	// that takes time is done.
	Checks    Checks
	Recipient recipient.Recipient // nil: a key that is not accepted
	// ReportData is the one that will be accepted.
	ReportData kbs.ReportData
	// Runtime is what a guest says of itself and binds into its Evidence. nil:
	// it says nothing so, and its launch digest alone tells its workload.
	Runtime *kbs.RuntimeData
	Verify  func(context.Context, verifier.Verifier, time.Time) (*verifier.Claims, error)
	Accepts []kbs.RegistrationType
	Raw     []byte // Evidence as it came, kept for the owner if it is denied
	Denial  string // tells the guest that a rule failed, not which
}

// AddNonce compares a session's nonce with the one that the guest repeats.
func (c *Checks) AddNonce(want, got []byte) {
	fresh := len(want) > 0 && subtle.ConstantTimeCompare(got, want) == 1
	c.Add("session_nonce", fresh, "the nonce of this session", yesNo(fresh, "the same", "another"),
		"the guest answered with another session's nonce: replayed Evidence, or a confused proxy")
}

// SetKey takes the guest's key, nil with an error for one that is not
// accepted.
func (q *Request) SetKey(public recipient.Recipient, err error, accepted, got string) {
	if err != nil {
		public, got = nil, err.Error()
	}
	q.Recipient = public
	q.Checks.Add("tee_key", public != nil, accepted, got, "the client is of a kind or configuration this server does not know")
}

// SetEvidence takes Evidence in one of the shapes that fit the session's TEE.
func (q *Request) SetEvidence(sess *session.Session, p *evidence.Parsed, err error, shapes []string) {
	var refused *verifier.Error
	switch {
	case errors.As(err, &refused):
		q.Checks.take(refused.Result(sess.TEE).Rules)
	case err != nil || p == nil:
		q.Checks.Add("evidence_format", false, strings.Join(shapes, " or "), "unreadable", "the client is not one this server knows")
	default:
		q.Raw = p.Evidence.Report
		q.Checks.Add("session_tee", slices.Contains(shapes, p.Shape), strings.Join(shapes, " or "), p.Shape, "the guest announced another TEE than it has")
		q.Verify = p.Verify
	}
}

// maxGot is longer than any honest value; a hostile one must not fill the
// store.
const maxGot = 1024

func clip(s string) string {
	if len(s) > maxGot {
		return strings.ToValidUTF8(s[:maxGot], "") + " (cut)"
	}
	return s
}

// addType keeps a workload's key from guests that prove less than it asks.
func (c *Checks) addType(got kbs.RegistrationType, accepted []kbs.RegistrationType) {
	names := make([]string, len(accepted))
	for i, t := range accepted {
		names[i] = typeName(t)
	}
	c.Add("registered_type", slices.Contains(accepted, got), strings.Join(names, " or "), typeName(got),
		"the guest speaks another dialect than its workload is registered for")
}

// typeName is a type as people know it: the native one has no name.
func typeName(t kbs.RegistrationType) string { return cmp.Or(string(t), "native") }

func (c *Checks) addDigest(name string, want, got kbs.Digest, hint string) {
	c.Add(name, !want.IsZero() && want == got, want.String(), got.String(), hint)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// addConflict is the failed rule of a workload whose policies exclude one
// another.
func (c *Checks) addConflict(err *policy.LevelError) {
	c.Add("policy", false, "policies that can be satisfied together", err.Error(),
		"have the policy changed, or register the workload with rules that fit it")
	(*c)[len(*c)-1].Level = err.Level
}

// DenialNaming tells a guest's owner where to look, in dialects that have no
// field for the session.
func DenialNaming(sess *session.Session) string {
	return "attestation denied: ccrun explain " + sess.ID.String()
}
