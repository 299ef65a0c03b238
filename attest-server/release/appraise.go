package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/hint"
)

// appraisal collects every rule that was applied to one attestation. It
// affirms only if the Evidence was authentic, was appraised against a
// registration, and no rule failed.
type appraisal struct {
	Checks
	at           time.Time
	claims       *verifier.Claims
	appraised    bool
	registration kbs.Digest
	version      int64 // of the workload
	reportData   kbs.ReportData
	recipient    recipient.Recipient
	// lack is set if this server lacked something to verify the Evidence with:
	// whether it is good, nobody knows.
	lack error
	// reportID is the VM's; nil where the TEE has nothing of the kind.
	reportID []byte
	// confirmed is set if that VM has its disk open already, whatever else holds.
	confirmed error
}

func (a *appraisal) granted() bool {
	return a.appraised && a.claims != nil && a.recipient != nil && !a.registration.IsZero() && a.passed()
}

func (a *appraisal) result(tee kbs.TEE) kbs.AttestationResult {
	r := kbs.AttestationResult{TEE: tee, Result: kbs.Contraindicated, Rules: a.Checks}
	switch {
	case a.granted():
		r.Result = kbs.Affirming
	case a.lack != nil || a.confirmed != nil:
		r.Result = kbs.Undecided
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
func (e *Engine) appraise(ctx context.Context, sess *session.Session, req Request) (*appraisal, error) {
	a := &appraisal{Checks: req.Checks, at: e.Clock().UTC(), reportData: req.ReportData, recipient: req.Recipient}
	if !a.passed() || req.Recipient == nil || req.Verify == nil {
		return a, nil
	}
	var w *store.Workload
	var err error
	if req.Runtime != nil {
		if w, err = e.workloadByID(ctx, a, sess, req); err != nil {
			return nil, err
		}
	}
	if ok, err := a.verify(ctx, verifier.ByTEE(e.Verifiers), sess.TEE, req); !ok {
		return a, err
	}
	checks, err := e.machineChecks(ctx, a.claims)
	if err != nil {
		return a, err
	}
	a.Checks = append(a.Checks, checks...)
	if req.Runtime == nil {
		w, err = e.workloadByTuple(ctx, a, sess, req)
	}
	if err != nil || w == nil {
		return a, err
	}
	if err := e.compare(a, *w); err != nil || !a.granted() {
		return a, err
	}
	return a, e.firstRelease(ctx, a)
}

// renewalKey is nil for a guest whose Evidence binds none.
func (a *appraisal) renewalKey(r *kbs.RuntimeData) *session.RenewalKey {
	if r == nil || r.RenewalKey == nil {
		return nil
	}
	return &session.RenewalKey{Key: *r.RenewalKey, Identity: r.IdentityDigest, Launch: a.claims.LaunchDigest}
}

// firstRelease refuses a VM that has its disk open: who asks now is not its
// agent, which asks before anything else runs.
func (e *Engine) firstRelease(ctx context.Context, a *appraisal) error {
	err := e.Store.Unconfirmed(ctx, a.reportID)
	if err != nil && !errors.Is(err, store.ErrConfirmed) {
		return err
	}
	if err != nil {
		a.confirmed = err
		a.Add(kbs.RuleFirstRelease, false, "a VM that has not confirmed that its disk opened", err.Error(),
			"something in the VM asks for the key again, which its agent never does: stop it, and look for a break-in; a new VM gets the key")
	}
	return nil
}

// addReportID notes what tells the VM from all others.
func (a *appraisal) addReportID() {
	if a.claims.SNP == nil {
		return
	}
	id := a.claims.SNP.ReportID
	a.Add("report_id", len(id) == reportIDBytes && !id.IsZero(), "a REPORT_ID", id.String(), "the firmware gave this guest no identity of its own")
	a.reportID = id
}

// reportIDBytes is the size of an SNP report's REPORT_ID.
const reportIDBytes = 32

// workloadByID checks the request against the registration of the session's
// workload. nil: there is none.
func (e *Engine) workloadByID(ctx context.Context, a *appraisal, sess *session.Session, req Request) (*store.Workload, error) {
	w, err := e.Store.VersionWith(ctx, sess.WorkloadID, req.Runtime.IdentityDigest)
	if errors.Is(err, store.ErrNotFound) {
		a.Add("registered", false, "a registration for workload "+sess.WorkloadID, "none",
			"register the workload with `ccrun register RECORD`, or it was removed")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	reg := w.Registration
	a.registration, a.version = w.Digest, w.Version
	a.addType(reg.Type, req.Accepts)
	a.Add("registered", reg.WorkloadID == sess.WorkloadID, sess.WorkloadID, reg.WorkloadID, "the store mixes up its rows: restore a backup")
	a.addLimits(w)
	a.Add("registered_tee", reg.ReferenceValues.TEE == sess.TEE, string(reg.ReferenceValues.TEE), string(sess.TEE),
		"the workload was built for another TEE: build it with --tee "+string(sess.TEE))
	a.addDigest("identity_digest", reg.IdentityDigest, req.Runtime.IdentityDigest,
		"the guest booted with another identity segment than was registered")
	a.addDigest("footer_digest", reg.FooterDigest, req.Runtime.FooterDigest,
		"the footer of the guest's disk is not the one registered: the image was altered, or is another build")
	return &w, nil
}

// workloadByTuple finds out which workload the verified guest is. Where it is
// none, the one it misses least is appraised all the same, so that the owner
// reads which rules failed; rule registered keeps that from granting anything.
func (e *Engine) workloadByTuple(ctx context.Context, a *appraisal, sess *session.Session, req Request) (*store.Workload, error) {
	c, err := e.Store.WorkloadOf(ctx, a.claims.LaunchDigest, shown(a.claims))
	switch {
	case errors.Is(err, store.ErrNotFound):
		a.Add("registered", false, "a workload with this launch digest", a.claims.LaunchDigest.String(),
			"register the guest's measurement, or it is not the guest you think")
		return nil, nil
	case errors.Is(err, store.ErrAmbiguous):
		a.Add("registered", false, "exactly one workload that this guest can be", err.Error(),
			"the server refuses to register two such workloads, so its store was changed: remove all but one")
		return nil, nil
	case err != nil:
		return nil, err
	}
	w := c.Workload
	id := w.Registration.WorkloadID
	a.registration, a.version = w.Digest, w.Version
	a.addCandidate(c)
	if !c.Shared {
		sess.WorkloadID = id
	}
	a.addType(w.Registration.Type, req.Accepts)
	if sess.Dialect == session.Legacy { // whose guest said which one it is
		same := sess.Named(id)
		a.Add("workload_id", same, id, yesNo(same, "the same", "another"), "the guest's disk names another workload than the one with its measurement")
	}
	a.addLimits(w)
	return &w, nil
}

// addCandidate says how the workload was found. One that alone has the launch
// digest is who the guest wants to be: its own rules say what is wrong with that.
// Of several it is the nearest, which need not be the guest's; if they are not of
// one tenant, the session stays without a workload, so that only the operator
// reads it: neither may learn what another's guests show, or are asked for.
func (a *appraisal) addCandidate(c store.Candidate) {
	if c.Whole || c.Among == 1 {
		a.Add("registered", true, "a workload with this launch digest", c.Registration.WorkloadID, "")
		return
	}
	a.Add("registered", false, "a workload with all that this guest shows",
		fmt.Sprintf("none of the %d with its launch digest; the nearest is %s", c.Among, c.Registration.WorkloadID),
		"the rules that failed below are those of the nearest: if the guest is to be another, register what it shows")
}

// verify has Evidence verified. A refusal is no error but a failed rule, and so
// is that there is nothing to verify it with.
func (a *appraisal) verify(ctx context.Context, v verifier.Verifier, tee kbs.TEE, req Request) (bool, error) {
	claims, err := req.Verify(ctx, v, a.at)
	var refused *verifier.Error
	switch {
	case errors.As(err, &refused):
		a.take(refused.Result(tee).Rules)
		if verifier.IsLacking(err) {
			a.lack = refused
		}
		return false, nil
	case errors.Is(err, verifier.ErrBusy):
		a.Add("endorsement", false, "the vendor's word on this machine", err.Error(),
			"the vendor is asked again when the guest comes back, as it does by itself; `ccrun certs import` brings what is missing")
		a.lack = err
		return false, nil
	case err != nil:
		return false, fmt.Errorf("verifying evidence: %w", err)
	case claims == nil:
		return false, errors.New("verifying evidence: neither claims nor an error")
	}
	a.claims = claims
	a.addReportID()
	return true, nil
}

// compare appraises the verified claims, under the policies at every level.
func (e *Engine) compare(a *appraisal, w store.Workload) error {
	effective, err := e.Policies.Effective(w)
	var conflict *policy.LevelError
	switch {
	case errors.As(err, &conflict):
		a.addConflict(conflict)
		return nil
	case err != nil:
		return err
	}
	result := effective.Appraise(a.claims, verifier.Expectation{ReportData: a.reportData, At: a.at, RequirePCRs: true, Advisories: e.Policies.Advisories()})
	a.take(result.Rules)
	a.appraised = result.OK()
	a.Add("appraisal", a.appraised, kbs.Affirming, result.Result, "")
	return nil
}

// addLimits adds what the owner can end a registration by.
func (a *appraisal) addLimits(w store.Workload) {
	state := "not revoked"
	if w.RevokedAt != nil {
		state = "revoked " + w.RevokedAt.Format(time.RFC3339)
	}
	a.Add("not_revoked", w.RevokedAt == nil, "not revoked", state, "the owner revoked this workload: build and register a new one")
	if w.EndsAt != nil {
		a.Add("version", !w.Ended(a.at), "a version that is not over", fmt.Sprintf("version %d, which ends %s", w.Version, w.EndsAt.Format(time.RFC3339)),
			"a later version of the workload replaced this one: start its image")
	}
	if w.Registration.Release == nil {
		return
	}
	// What decides is the store, in the transaction that releases.
	got, next := "not reached", ""
	err := w.CheckLimits(a.at)
	if err != nil {
		got, next = err.Error(), cmp.Or(hint.Of(err), "the registration allows no more releases: register a new build, or remove and register this one again")
	}
	a.Add("release_limit", err == nil, "not reached", got, next)
}
