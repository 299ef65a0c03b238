package attestserver

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// checks are rules that were applied.
type checks []kbs.Rule

func (c *checks) add(name string, pass bool, expected, got, hint string) {
	if pass {
		hint = ""
	}
	*c = append(*c, kbs.Rule{Rule: name, Expected: expected, Got: clip(got), Pass: pass, Hint: hint})
}

// take adds the verifier's rules.
func (c *checks) take(rules []verifier.Rule) {
	for _, r := range rules {
		r.Got = clip(r.Got)
		*c = append(*c, r)
	}
}

// passed says whether there are rules, and none failed.
func (c checks) passed() bool {
	return len(c) > 0 && !slices.ContainsFunc(c, func(r kbs.Rule) bool { return !r.Pass })
}

// attestRequest is what a guest shows, decoded by its dialect.
type attestRequest struct {
	// checks are about the session and the guest's key. If one failed, nothing
	// that takes time is done.
	checks    checks
	recipient recipient.Recipient // nil: a key that is not accepted
	// reportData is the one that will be accepted.
	reportData kbs.ReportData
	// runtime is what a guest says of itself and binds into its Evidence. nil:
	// it says nothing so, and its launch digest alone tells its workload.
	runtime *kbs.RuntimeData
	verify  func(context.Context, verifier.Verifier, time.Time) (*verifier.Claims, error)
	accepts []kbs.RegistrationType
	denial  string // tells the guest that a rule failed, not which
}

// addNonce compares a session's nonce with the one that the guest repeats.
func (c *checks) addNonce(want, got []byte) {
	fresh := len(want) > 0 && subtle.ConstantTimeCompare(got, want) == 1
	c.add("session_nonce", fresh, "the nonce of this session", yesNo(fresh, "the same", "another"),
		"the guest answered with another session's nonce: replayed Evidence, or a confused proxy")
}

// appraisal collects every rule that was applied to one attestation. It
// affirms only if the Evidence was authentic, was appraised against a
// registration, and no rule failed.
type appraisal struct {
	checks
	at           time.Time
	claims       *verifier.Claims
	appraised    bool
	registration kbs.Digest
	reportData   kbs.ReportData
	recipient    recipient.Recipient
}

func (a *appraisal) granted() bool {
	return a.appraised && a.claims != nil && a.recipient != nil && !a.registration.IsZero() && a.passed()
}

func (a *appraisal) result(tee kbs.TEE) kbs.AttestationResult {
	r := kbs.AttestationResult{TEE: tee, Result: kbs.Contraindicated, Rules: a.checks}
	if a.granted() {
		r.Result = kbs.Affirming
	}
	if a.claims != nil {
		if b, err := json.Marshal(a.claims); err == nil {
			r.Claims = b
		}
	}
	return r
}

// appraise runs every rule. An error means that no answer could be had; a
// failed rule is no error. The order keeps secrets and time: what concerns
// the session alone comes first and can end it cheaply; after that Evidence
// is always verified, so that the time taken does not tell strangers whether
// a workload is registered.
func (s *Server) appraise(ctx context.Context, sess *session.Session, req attestRequest) (*appraisal, error) {
	a := &appraisal{checks: req.checks, at: s.Clock().UTC(), reportData: req.reportData, recipient: req.recipient}
	if !a.passed() || req.recipient == nil || req.verify == nil {
		return a, nil
	}
	var w *store.Workload
	var err error
	if req.runtime != nil {
		if w, err = s.workloadByID(ctx, a, sess, req); err != nil {
			return nil, err
		}
	}
	if ok, err := a.verify(ctx, verifier.ByTEE(s.Verifiers), sess.TEE, req); !ok {
		return a, err
	}
	if req.runtime == nil {
		w, err = s.workloadByDigest(ctx, a, sess, req)
	}
	if err != nil || w == nil {
		return a, err
	}
	return a, s.compare(a, *w)
}

// workloadByID checks the request against the registration of the session's
// workload. nil: there is none.
func (s *Server) workloadByID(ctx context.Context, a *appraisal, sess *session.Session, req attestRequest) (*store.Workload, error) {
	w, err := s.Store.Workload(ctx, sess.WorkloadID)
	if errors.Is(err, store.ErrNotFound) {
		a.add("registered", false, "a registration for workload "+sess.WorkloadID, "none",
			"register the workload with `ccrun register RECORD`, or it was removed")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	reg := w.Registration
	a.registration = w.Digest
	a.addType(reg.Type, req.accepts)
	a.add("registered", reg.WorkloadID == sess.WorkloadID, sess.WorkloadID, reg.WorkloadID, "the store mixes up its rows: restore a backup")
	a.addLimits(w)
	a.add("registered_tee", reg.ReferenceValues.TEE == sess.TEE, string(reg.ReferenceValues.TEE), string(sess.TEE),
		"the workload was built for another TEE: build it with --tee "+string(sess.TEE))
	a.addDigest("identity_digest", reg.IdentityDigest, req.runtime.IdentityDigest,
		"the guest booted with another identity segment than was registered")
	a.addDigest("footer_digest", reg.FooterDigest, req.runtime.FooterDigest,
		"the footer of the guest's disk is not the one registered: the image was altered, or is another build")
	return &w, nil
}

// workloadByDigest finds out which workload the verified guest is.
func (s *Server) workloadByDigest(ctx context.Context, a *appraisal, sess *session.Session, req attestRequest) (*store.Workload, error) {
	w, err := s.Store.WorkloadByDigest(ctx, a.claims.LaunchDigest)
	if errors.Is(err, store.ErrNotFound) {
		a.add("registered", false, "a workload with this launch digest", a.claims.LaunchDigest.String(),
			"register the guest's measurement, or it is not the guest you think")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sess.WorkloadID = w.Registration.WorkloadID
	a.registration = w.Digest
	a.add("registered", true, "a workload with this launch digest", sess.WorkloadID, "")
	a.addType(w.Registration.Type, req.accepts)
	if sess.Dialect == session.Legacy { // whose guest said which one it is
		same := sess.Named(sess.WorkloadID)
		a.add("workload_id", same, sess.WorkloadID, yesNo(same, "the same", "another"), "the guest's disk names another workload than the one with its measurement")
	}
	a.addLimits(w)
	return &w, nil
}

// verify has Evidence verified. A refusal is no error but a failed rule.
func (a *appraisal) verify(ctx context.Context, v verifier.Verifier, tee kbs.TEE, req attestRequest) (bool, error) {
	claims, err := req.verify(ctx, v, a.at)
	var refused *verifier.Error
	switch {
	case errors.As(err, &refused):
		a.take(refused.Result(tee).Rules)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("verifying evidence: %w", err)
	case claims == nil:
		return false, errors.New("verifying evidence: neither claims nor an error")
	}
	a.claims = claims
	return true, nil
}

// compare appraises the verified claims, under the policies at every level.
func (s *Server) compare(a *appraisal, w store.Workload) error {
	e, err := s.effective(w)
	var conflict *policy.LevelError
	switch {
	case errors.As(err, &conflict):
		a.addConflict(conflict)
		return nil
	case err != nil:
		return err
	}
	result := e.Appraise(a.claims, verifier.Expectation{ReportData: a.reportData, At: a.at, RequirePCRs: true})
	a.take(result.Rules)
	a.appraised = result.OK()
	a.add("appraisal", a.appraised, kbs.Affirming, result.Result, "")
	return nil
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

// addLimits adds what the owner can end a registration by.
func (a *appraisal) addLimits(w store.Workload) {
	state := "not revoked"
	if w.RevokedAt != nil {
		state = "revoked " + w.RevokedAt.Format(time.RFC3339)
	}
	a.add("not_revoked", w.RevokedAt == nil, "not revoked", state, "the owner revoked this workload: build and register a new one")
	if w.Registration.Release == nil {
		return
	}
	// What decides is the store, in the transaction that releases.
	got := "not reached"
	err := w.CheckLimits(a.at)
	if err != nil {
		got = err.Error()
	}
	a.add("release_limit", err == nil, "not reached", got, "the registration allows no more releases: register a new build, or remove and register this one again")
}

// addType keeps a workload's key from guests that prove less than it asks.
func (c *checks) addType(got kbs.RegistrationType, accepted []kbs.RegistrationType) {
	names := make([]string, len(accepted))
	for i, t := range accepted {
		names[i] = typeName(t)
	}
	c.add("registered_type", slices.Contains(accepted, got), strings.Join(names, " or "), typeName(got),
		"the guest speaks another dialect than its workload is registered for")
}

func typeName(t kbs.RegistrationType) string {
	if t == kbs.TypeNative {
		return "native"
	}
	return string(t)
}

func (c *checks) addDigest(name string, want, got kbs.Digest, hint string) {
	c.add(name, !want.IsZero() && want == got, want.String(), got.String(), hint)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
