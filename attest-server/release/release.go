package release

import (
	"context"
	"errors"
	"time"

	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// Attest spends the session's nonce, appraises, records, and grants. nil means
// that the session may fetch what is its workload's.
func (e *Engine) Attest(ctx context.Context, guest Guest, req Request) error {
	if err := e.anchored(guest); err != nil { // before the nonce is spent
		return err
	}
	leave, err := e.Slots.Enter(ctx, budget.OfAddress(guest.Peer))
	if err != nil {
		return err
	}
	defer leave()
	sess := guest.Session
	if err := e.Sessions.Use(ctx, sess); err != nil {
		return sessionProblem(err, sess)
	}
	a, err := e.appraise(ctx, sess, req)
	if err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the evidence could not be appraised now", Session: sess.ID.String(), Cause: err}
	}
	if err := e.record(ctx, guest, a, req.Raw); err != nil {
		return err
	}
	if a.lack != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the server lacks what it needs to appraise the evidence", Session: sess.ID.String(),
			Cause: a.lack, RetryAfter: comeBack(a.lack)}
	}
	if a.confirmed != nil {
		return alreadyReleased(a.confirmed, sess)
	}
	if !a.granted() {
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: req.Denial, Session: sess.ID.String()}
	}
	err = e.Sessions.Grant(ctx, sess, session.Grant{
		WorkloadID: sess.WorkloadID, Registration: a.registration,
		ReportData: a.reportData, Recipient: a.recipient, ReportID: a.reportID, Left: e.ReleasesPerSession,
		Renewal: a.renewalKey(req.Runtime),
	})
	if err != nil {
		return sessionProblem(err, sess)
	}
	return nil
}

// anchored refuses what could release something from a store that is not what
// its witnesses have seen.
func (e *Engine) anchored(guest Guest) error {
	if err := e.Anchor.Ready(); err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the server's audit log is not what its witnesses have seen, or they cannot say: nothing is released",
			Session: guest.Session.ID.String(), Cause: err, RetryAfter: lackedFor}
	}
	return nil
}

// lackedFor is when a guest may come back if nothing says how long the server
// will lack something, and longestLack the most that it is told.
const (
	lackedFor   = 15 * time.Second
	longestLack = 5 * time.Minute
)

func comeBack(lack error) time.Duration {
	var busy *verifier.Busy
	if errors.As(lack, &busy) && busy.After > 0 {
		return min(busy.After, longestLack)
	}
	return lackedFor
}

// record keeps the outcome for the owner before the guest hears of it.
func (e *Engine) record(ctx context.Context, guest Guest, a *appraisal, raw []byte) error {
	sess := guest.Session
	result := a.result(sess.TEE)
	version := a.version
	if sess.WorkloadID == "" { // whose version it is, nobody is told
		version = 0
	}
	var failed []string
	for _, rule := range result.Rules {
		if !rule.Pass {
			failed = append(failed, rule.Rule)
		}
	}
	e.Log.Info("attestation", "session", sess.ID.String(), "workload", sess.WorkloadID, "tee", sess.TEE,
		"peer", guest.Peer, "granted", a.granted(), "failed_rules", failed)
	// A guest that hangs up early is recorded all the same.
	return e.Store.RecordSession(context.WithoutCancel(ctx), kbs.SessionRecord{
		Session: sess.ID.String(), WorkloadID: sess.WorkloadID, Version: version, At: a.at, Peer: guest.Peer,
		Granted: a.granted(), Result: result, Checkpoint: string(e.Anchor.Checkpoint()), Evidence: raw,
	}, a.claims != nil)
}

// DiskKey is the sealed DiskKey of workload id, which must be the session's,
// if it still is what was appraised.
func (e *Engine) DiskKey(ctx context.Context, guest Guest, id string) ([]byte, error) {
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	sess := guest.Session
	g, err := e.Sessions.Take(ctx, sess, session.Claim{WorkloadID: id})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	k, err := e.Store.Release(ctx, id, g.Registration, asking(sess, g))
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	e.Log.Info("key released", "session", sess.ID.String(), "workload", id, "dialect", sess.Dialect, "peer", guest.Peer, "releases_left", g.Left)
	return e.seal(g, kbs.ReleaseName(id), k)
}

// StagedDiskKey is DiskKey of a rotation under way, for a guest whose disk
// does not open with the one in use.
func (e *Engine) StagedDiskKey(ctx context.Context, guest Guest, id string) ([]byte, error) {
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	sess := guest.Session
	g, err := e.Sessions.Take(ctx, sess, session.Claim{WorkloadID: id})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	k, err := e.Store.ReleaseStaged(ctx, id, g.Registration, asking(sess, g))
	if errors.Is(err, store.ErrNoRotation) {
		return nil, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "the workload's disk key is not being rotated", Session: sess.ID.String()}
	}
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	e.Log.Info("staged key released", "session", sess.ID.String(), "workload", id, "dialect", sess.Dialect, "peer", guest.Peer, "releases_left", g.Left)
	return e.seal(g, kbs.StagedName(id), k)
}

// Confirm notes that the guest of workload id, which must be the session's, has
// its disk open: its VM, which outlives the session, gets no DiskKey any more.
// The guest lets nothing else run before it has this answer.
func (e *Engine) Confirm(ctx context.Context, guest Guest, id string) error {
	sess := guest.Session
	g, err := e.Sessions.Granted(ctx, sess, session.Claim{WorkloadID: id})
	if err != nil {
		return sessionProblem(err, sess)
	}
	if err := e.Store.Confirm(ctx, id, asking(sess, g)); errors.Is(err, store.ErrLimit) {
		return &refusal.Error{Code: kbs.CodeQuota, Detail: "too many guests of this workload have confirmed within a year", Session: sess.ID.String(), Cause: err}
	} else if err != nil {
		return err
	}
	e.Log.Info("release confirmed", "session", sess.ID.String(), "workload", id, "peer", guest.Peer)
	return nil
}

func asking(sess *session.Session, g session.Grant) store.Guest {
	return store.Guest{Session: sess.ID.String(), ReportID: g.ReportID}
}

// alreadyReleased is no denial: a new VM, with its own REPORT_ID, gets the key.
func alreadyReleased(cause error, sess *session.Session) error {
	return &refusal.Error{Code: kbs.CodeAlreadyReleased, Detail: "this VM has confirmed that its disk opened: start a new one", Session: sess.ID.String(), Cause: cause}
}

// Resource is the sealed resource of that name, if its policy lets the
// session's workload have it.
func (e *Engine) Resource(ctx context.Context, guest Guest, name string) ([]byte, error) {
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	sess := guest.Session
	g, err := e.Sessions.Take(ctx, sess, session.Claim{Resource: true})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	id, err := kbs.ParseResourceID(name)
	if err != nil {
		return nil, refusal.NewKind("PluginInternalError", kbs.CodeNotFound, "no such resource: %v", err)
	}
	v, err := e.Store.ReleaseResource(ctx, id, g.WorkloadID, g.Registration, sess.ID.String())
	switch {
	case errors.Is(err, store.ErrNotApproved):
		return nil, &refusal.Error{Code: kbs.CodeForbidden, Detail: "an approval of the resource for this workload is missing", Session: sess.ID.String(), Cause: err}
	case errors.Is(err, store.ErrNotFound):
		return nil, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "no such resource for this workload", Session: sess.ID.String(), Cause: err}
	case err != nil:
		return nil, releaseProblem(err, sess)
	}
	e.Log.Info("resource released", "session", sess.ID.String(), "workload", g.WorkloadID, "resource", id.String(), "dialect", sess.Dialect, "peer", guest.Peer)
	return e.seal(g, kbs.ResourceName(id), v)
}

// seal encrypts plain to the grant's recipient, and wipes it.
func (e *Engine) seal(g session.Grant, name string, plain secret.Bytes) ([]byte, error) {
	defer plain.Wipe()
	return g.Recipient.Seal(e.Rand, recipient.Item{Plain: plain.Reveal(), Name: name, ReportData: g.ReportData, At: e.Clock().UTC()})
}

// releaseProblem is what a guest is told of a release refused at the last
// moment.
func releaseProblem(err error, sess *session.Session) error {
	switch {
	case errors.Is(err, store.ErrChanged):
		// By an update, most likely: whoever attests again is judged by what is
		// registered now.
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the registration was changed since: attest again", Session: sess.ID.String(), Cause: err, RetryAfter: time.Second}
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrRevoked):
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload was revoked or removed", Session: sess.ID.String(), Cause: err}
	case errors.Is(err, store.ErrConfirmed):
		return alreadyReleased(err, sess)
	case errors.Is(err, store.ErrLimit):
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload's release limit is reached", Session: sess.ID.String(), Cause: err}
	}
	return err
}

func sessionProblem(err error, sess *session.Session) error {
	var code string
	switch {
	case errors.Is(err, session.ErrExpired):
		code = kbs.CodeSessionExpired
	case errors.Is(err, session.ErrFull):
		code = kbs.CodeUnavailable
	case errors.Is(err, session.ErrNotAttested):
		code = kbs.CodeNotAttested
	case errors.Is(err, session.ErrDenied):
		code = kbs.CodeAttestationDenied
	case errors.Is(err, session.ErrOther):
		code = kbs.CodeForbidden
	default: // the store's
		return err
	}
	return &refusal.Error{Code: code, Detail: err.Error(), Session: sess.ID.String()}
}
