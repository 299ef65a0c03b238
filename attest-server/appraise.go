package attestserver

import (
	"context"
	"crypto/hpke"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// appraisal collects every rule that was applied to one attestation. It
// affirms only if the Evidence was authentic, was appraised against a
// registration, and no rule failed.
type appraisal struct {
	at           time.Time
	rules        []kbs.Rule
	claims       *verifier.Claims
	appraised    bool
	registration kbs.Digest
	reportData   kbs.ReportData
	teeKey       hpke.PublicKey      // of a native session
	recipient    recipient.Recipient // of another
}

func (a *appraisal) add(name string, pass bool, expected, got, hint string) bool {
	if pass {
		hint = ""
	}
	a.rules = append(a.rules, kbs.Rule{Rule: name, Expected: expected, Got: clip(got), Pass: pass, Hint: hint})
	return pass
}

func (a *appraisal) granted() bool {
	return a.appraised && a.claims != nil && (a.teeKey != nil) != (a.recipient != nil) && !a.registration.IsZero() && len(a.rules) > 0 &&
		!slices.ContainsFunc(a.rules, func(r kbs.Rule) bool { return !r.Pass })
}

func (a *appraisal) result(tee kbs.TEE) kbs.AttestationResult {
	r := kbs.AttestationResult{TEE: tee, Result: kbs.Contraindicated, Rules: a.rules}
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
func (s *Server) appraise(ctx context.Context, sess *session, req kbs.AttestRequest) (*appraisal, error) {
	a := &appraisal{at: s.Clock().UTC()}
	if !a.session(sess, req) {
		return a, nil
	}
	w, err := s.Store.Workload(ctx, sess.workloadID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	registered := err == nil
	if registered {
		a.workload(sess, req, w)
	} else {
		a.add("registered", false, "a registration for workload "+sess.workloadID, "none",
			"register the workload with `ccrun register RECORD`, or it was removed")
	}
	ok, err := a.verify(func() (*verifier.Claims, error) {
		return verifier.ByTEE(s.Verifiers).Verify(ctx, req.Evidence, a.at)
	}, sess.tee)
	if ok && registered {
		err = s.compare(a, w)
	}
	return a, err
}

// verify has Evidence verified. A refusal is no error but a failed rule.
func (a *appraisal) verify(verify func() (*verifier.Claims, error), tee kbs.TEE) (bool, error) {
	claims, err := verify()
	var refused *verifier.Error
	switch {
	case errors.As(err, &refused):
		a.take(refused.Result(tee).Rules)
		return false, nil
	case errors.Is(err, verifier.ErrBusy):
		return false, &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the service that endorses this machine does not answer", Cause: err}
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
		a.policyRule(conflict)
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

func (a *appraisal) take(rules []verifier.Rule) {
	for _, r := range rules {
		r.Got = clip(r.Got)
		a.rules = append(a.rules, kbs.Rule(r))
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

// session checks what the request claims against the session it came in, and
// computes the report data that alone will be accepted.
func (a *appraisal) session(sess *session, req kbs.AttestRequest) bool {
	fresh := subtle.ConstantTimeCompare(req.RuntimeData.Nonce, sess.nonce[:]) == 1
	ok := a.add("session_nonce", fresh, "the nonce of this session", yesNo(fresh, "the same", "another"),
		"the guest answered with another session's nonce: replayed Evidence, or a confused proxy")
	same := req.Evidence.TEE == sess.tee
	ok = a.add("session_tee", same, string(sess.tee), strconv.QuoteToGraphic(string(req.Evidence.TEE)), "the guest announced another TEE than it has") && ok
	a.teeKey = parseTEEKey(req.RuntimeData.TEEKey)
	ok = a.add("tee_key", a.teeKey != nil, "an ML-KEM hybrid HPKE public key", fmt.Sprintf("KEM 0x%04x, %d bytes", req.RuntimeData.TEEKey.KEM, len(req.RuntimeData.TEEKey.Public)),
		"the guest agent is too old, too new, or not ours") && ok
	rd, err := kbs.Binding(sess.workloadID, req.RuntimeData)
	if err != nil {
		return a.add("runtime_data", false, "complete runtime data", err.Error(), "the guest agent is not ours")
	}
	a.reportData = rd
	return ok
}

// workload checks the request against the registration.
func (a *appraisal) workload(sess *session, req kbs.AttestRequest, w store.Workload) {
	reg := w.Registration
	a.registration = w.Digest
	a.kind(reg.Type, kbs.TypeNative)
	a.add("registered", reg.WorkloadID == sess.workloadID, sess.workloadID, reg.WorkloadID, "the store mixes up its rows: restore a backup")
	a.notRevoked(w)
	a.add("registered_tee", reg.ReferenceValues.TEE == sess.tee, string(reg.ReferenceValues.TEE), string(sess.tee),
		"the workload was built for another TEE: build it with --tee "+string(sess.tee))
	a.digest("identity_digest", reg.IdentityDigest, req.RuntimeData.IdentityDigest,
		"the guest booted with another identity segment than was registered")
	a.digest("footer_digest", reg.FooterDigest, req.RuntimeData.FooterDigest,
		"the footer of the guest's disk is not the one registered: the image was altered, or is another build")
}

func (a *appraisal) notRevoked(w store.Workload) {
	state := "not revoked"
	if w.RevokedAt != nil {
		state = "revoked " + w.RevokedAt.Format(time.RFC3339)
	}
	a.add("not_revoked", w.RevokedAt == nil, "not revoked", state, "the owner revoked this workload: build and register a new one")
	a.releaseLimit(w)
}

// kind keeps a workload's key from guests that prove less than it asks.
func (a *appraisal) kind(got kbs.RegistrationType, accepted ...kbs.RegistrationType) {
	names := make([]string, len(accepted))
	for i, t := range accepted {
		names[i] = typeName(t)
	}
	a.add("registered_type", slices.Contains(accepted, got), strings.Join(names, " or "), typeName(got),
		"the guest speaks another dialect than its workload is registered for")
}

func typeName(t kbs.RegistrationType) string {
	if t == kbs.TypeNative {
		return "native"
	}
	return string(t)
}

func (a *appraisal) digest(name string, want, got kbs.Digest, hint string) {
	a.add(name, !want.IsZero() && want == got, want.String(), got.String(), hint)
}

func yesNo(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}
