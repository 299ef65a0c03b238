package attestserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// attest spends the session's nonce, appraises, records, and grants. nil means
// that the session may fetch what is its workload's.
func (s *Server) attest(r *http.Request, sess *session, req attestRequest) error {
	if err := s.acquire(r.Context()); err != nil {
		return err
	}
	defer s.release()
	if err := s.sessions.use(r.Context(), sess); err != nil {
		return sessionProblem(err, sess)
	}
	a, err := s.appraise(r.Context(), sess, req)
	if err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the evidence could not be appraised now", Session: sess.id.String(), Cause: err}
	}
	if err := s.record(r, sess, a); err != nil {
		return err
	}
	if !a.granted() {
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: req.denial, Session: sess.id.String()}
	}
	err = s.sessions.grant(r.Context(), sess, grant{
		workloadID: sess.workloadID, registration: a.registration,
		reportData: a.reportData, recipient: a.recipient, left: s.ReleasesPerSession,
	})
	if err != nil {
		return sessionProblem(err, sess)
	}
	return nil
}

// record keeps the outcome for the owner before the guest hears of it.
func (s *Server) record(r *http.Request, sess *session, a *appraisal) error {
	result := a.result(sess.tee)
	var failed []string
	for _, rule := range result.Rules {
		if !rule.Pass {
			failed = append(failed, rule.Rule)
		}
	}
	s.Log.Info("attestation", "session", sess.id.String(), "workload", sess.workloadID, "tee", sess.tee,
		"peer", peer(r), "granted", a.granted(), "failed_rules", failed)
	// Who hangs up early does not stay off the record.
	return s.Store.RecordSession(context.WithoutCancel(r.Context()), kbs.SessionRecord{
		Session: sess.id.String(), WorkloadID: sess.workloadID, At: a.at, Peer: peer(r),
		Granted: a.granted(), Result: result,
	}, a.claims != nil)
}

// diskKey is the sealed DiskKey of workload id, which must be the session's,
// if it still is what was appraised.
func (s *Server) diskKey(r *http.Request, sess *session, id string) ([]byte, error) {
	g, err := s.sessions.take(r.Context(), sess, claim{workloadID: id})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	k, err := s.Store.Release(r.Context(), id, g.registration, sess.id.String())
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	s.Log.Info("key released", "session", sess.id.String(), "workload", id, "dialect", sess.dialect, "peer", peer(r), "releases_left", g.left)
	return s.seal(g, kbs.ReleaseName(id), k)
}

// stagedDiskKey is diskKey of a rotation under way, for a guest whose disk
// does not open with the one in use.
func (s *Server) stagedDiskKey(r *http.Request, sess *session, id string) ([]byte, error) {
	g, err := s.sessions.take(r.Context(), sess, claim{workloadID: id})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	have, err := s.Store.Workload(r.Context(), id)
	if err == nil && have.Digest == g.registration && have.Rotation == "" {
		return nil, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "the workload's disk key is not being rotated", Session: sess.id.String()}
	}
	k, err := s.Store.ReleaseStaged(r.Context(), id, g.registration, sess.id.String())
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	s.Log.Info("staged key released", "session", sess.id.String(), "workload", id, "dialect", sess.dialect, "peer", peer(r), "releases_left", g.left)
	return s.seal(g, kbs.StagedName(id), k)
}

// resource is the sealed resource of that name, if its policy lets the
// session's workload have it.
func (s *Server) resource(r *http.Request, sess *session, name string) ([]byte, error) {
	g, err := s.sessions.take(r.Context(), sess, claim{resource: true})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	id, err := kbs.ParseResourceID(name)
	if err != nil {
		return nil, trusteeRefusal("PluginInternalError", kbs.CodeNotFound, "no such resource: %v", err)
	}
	v, err := s.Store.ReleaseResource(r.Context(), id, g.workloadID, g.registration, sess.id.String())
	switch {
	case errors.Is(err, store.ErrNotApproved):
		return nil, &refusal.Error{Code: kbs.CodeForbidden, Detail: "an approval of the resource for this workload is missing", Session: sess.id.String(), Cause: err}
	case errors.Is(err, store.ErrNotFound):
		return nil, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "no such resource for this workload", Session: sess.id.String(), Cause: err}
	case err != nil:
		return nil, releaseProblem(err, sess)
	}
	s.Log.Info("resource released", "session", sess.id.String(), "workload", g.workloadID, "resource", id.String(), "dialect", sess.dialect, "peer", peer(r))
	return s.seal(g, kbs.ResourceName(id), v)
}

// seal encrypts plain to the grant's recipient, and wipes it.
func (s *Server) seal(g grant, name string, plain secret.Bytes) ([]byte, error) {
	defer plain.Wipe()
	return g.recipient.Seal(s.Rand, recipient.Item{Plain: plain.Reveal(), Name: name, ReportData: g.reportData, At: s.Clock().UTC()})
}

// releaseProblem is what a guest is told of a release refused at the last
// moment.
func releaseProblem(err error, sess *session) error {
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrRevoked), errors.Is(err, store.ErrChanged):
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload was revoked or changed", Session: sess.id.String(), Cause: err}
	case errors.Is(err, store.ErrLimit):
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload's release limit is reached", Session: sess.id.String(), Cause: err}
	}
	return err
}

func sessionProblem(err error, sess *session) error {
	var code string
	switch {
	case errors.Is(err, errExpired):
		code = kbs.CodeSessionExpired
	case errors.Is(err, errFull):
		code = kbs.CodeUnavailable
	case errors.Is(err, errNotAttested):
		code = kbs.CodeNotAttested
	case errors.Is(err, errDenied):
		code = kbs.CodeAttestationDenied
	case errors.Is(err, errOther):
		code = kbs.CodeForbidden
	default: // the store's
		return err
	}
	return &refusal.Error{Code: code, Detail: err.Error(), Session: sess.id.String()}
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
