package attestserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// attest spends the session's nonce, appraises, records, and grants. nil means
// that the session may fetch what is its workload's.
func (s *Server) attest(r *http.Request, sess *session.Session, req attestRequest) error {
	if err := s.acquire(r.Context()); err != nil {
		return err
	}
	defer s.release()
	if err := s.sessions.Use(r.Context(), sess); err != nil {
		return sessionProblem(err, sess)
	}
	a, err := s.appraise(r.Context(), sess, req)
	if err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the evidence could not be appraised now", Session: sess.ID.String(), Cause: err}
	}
	if err := s.record(r, sess, a); err != nil {
		return err
	}
	if !a.granted() {
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: req.denial, Session: sess.ID.String()}
	}
	err = s.sessions.Grant(r.Context(), sess, session.Grant{
		WorkloadID: sess.WorkloadID, Registration: a.registration,
		ReportData: a.reportData, Recipient: a.recipient, Left: s.ReleasesPerSession,
	})
	if err != nil {
		return sessionProblem(err, sess)
	}
	return nil
}

// record keeps the outcome for the owner before the guest hears of it.
func (s *Server) record(r *http.Request, sess *session.Session, a *appraisal) error {
	result := a.result(sess.TEE)
	var failed []string
	for _, rule := range result.Rules {
		if !rule.Pass {
			failed = append(failed, rule.Rule)
		}
	}
	s.Log.Info("attestation", "session", sess.ID.String(), "workload", sess.WorkloadID, "tee", sess.TEE,
		"peer", answer.Peer(r), "granted", a.granted(), "failed_rules", failed)
	// Who hangs up early does not stay off the record.
	return s.Store.RecordSession(context.WithoutCancel(r.Context()), kbs.SessionRecord{
		Session: sess.ID.String(), WorkloadID: sess.WorkloadID, At: a.at, Peer: answer.Peer(r),
		Granted: a.granted(), Result: result,
	}, a.claims != nil)
}

// diskKey is the sealed DiskKey of workload id, which must be the session's,
// if it still is what was appraised.
func (s *Server) diskKey(r *http.Request, sess *session.Session, id string) ([]byte, error) {
	g, err := s.sessions.Take(r.Context(), sess, session.Claim{WorkloadID: id})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	k, err := s.Store.Release(r.Context(), id, g.Registration, sess.ID.String())
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	s.Log.Info("key released", "session", sess.ID.String(), "workload", id, "dialect", sess.Dialect, "peer", answer.Peer(r), "releases_left", g.Left)
	return s.seal(g, kbs.ReleaseName(id), k)
}

// stagedDiskKey is diskKey of a rotation under way, for a guest whose disk
// does not open with the one in use.
func (s *Server) stagedDiskKey(r *http.Request, sess *session.Session, id string) ([]byte, error) {
	g, err := s.sessions.Take(r.Context(), sess, session.Claim{WorkloadID: id})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	have, err := s.Store.Workload(r.Context(), id)
	if err == nil && have.Digest == g.Registration && have.Rotation == "" {
		return nil, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "the workload's disk key is not being rotated", Session: sess.ID.String()}
	}
	k, err := s.Store.ReleaseStaged(r.Context(), id, g.Registration, sess.ID.String())
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	s.Log.Info("staged key released", "session", sess.ID.String(), "workload", id, "dialect", sess.Dialect, "peer", answer.Peer(r), "releases_left", g.Left)
	return s.seal(g, kbs.StagedName(id), k)
}

// resource is the sealed resource of that name, if its policy lets the
// session's workload have it.
func (s *Server) resource(r *http.Request, sess *session.Session, name string) ([]byte, error) {
	g, err := s.sessions.Take(r.Context(), sess, session.Claim{Resource: true})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	id, err := kbs.ParseResourceID(name)
	if err != nil {
		return nil, refusal.NewKind("PluginInternalError", kbs.CodeNotFound, "no such resource: %v", err)
	}
	v, err := s.Store.ReleaseResource(r.Context(), id, g.WorkloadID, g.Registration, sess.ID.String())
	switch {
	case errors.Is(err, store.ErrNotApproved):
		return nil, &refusal.Error{Code: kbs.CodeForbidden, Detail: "an approval of the resource for this workload is missing", Session: sess.ID.String(), Cause: err}
	case errors.Is(err, store.ErrNotFound):
		return nil, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "no such resource for this workload", Session: sess.ID.String(), Cause: err}
	case err != nil:
		return nil, releaseProblem(err, sess)
	}
	s.Log.Info("resource released", "session", sess.ID.String(), "workload", g.WorkloadID, "resource", id.String(), "dialect", sess.Dialect, "peer", answer.Peer(r))
	return s.seal(g, kbs.ResourceName(id), v)
}

// seal encrypts plain to the grant's recipient, and wipes it.
func (s *Server) seal(g session.Grant, name string, plain secret.Bytes) ([]byte, error) {
	defer plain.Wipe()
	return g.Recipient.Seal(s.Rand, recipient.Item{Plain: plain.Reveal(), Name: name, ReportData: g.ReportData, At: s.Clock().UTC()})
}

// releaseProblem is what a guest is told of a release refused at the last
// moment.
func releaseProblem(err error, sess *session.Session) error {
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrRevoked), errors.Is(err, store.ErrChanged):
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload was revoked or changed", Session: sess.ID.String(), Cause: err}
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

// acquire waits for a place among the appraisals, which are the one thing
// here that costs real time.
func (s *Server) acquire(ctx context.Context) error {
	select {
	case s.verifying <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the server is busy", Cause: ctx.Err()}
	}
}

func (s *Server) release() { <-s.verifying }
