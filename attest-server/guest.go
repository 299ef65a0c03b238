package attestserver

import (
	"context"
	"crypto/hpke"
	"errors"
	"net/http"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/secret"
)

// auth opens a session. It does not ask the store whether the workload
// exists: who has no Evidence learns nothing of what is registered.
func (s *Server) auth(w http.ResponseWriter, r *http.Request) error {
	var req kbs.AuthRequest
	if err := readJSON(w, r, kbs.MaxAuthBody, &req); err != nil {
		return err
	}
	switch {
	case req.Version != 1:
		return refusal.New(kbs.CodeBadRequest, "protocol version %d, expected 1", req.Version)
	case !req.TEE.Valid():
		return refusal.New(kbs.CodeBadRequest, "tee %q, expected snp, tdx or sample", req.TEE)
	case !kbs.ValidWorkloadID(req.WorkloadID):
		return refusal.New(kbs.CodeBadRequest, "workload_id: expected up to 128 letters, digits, '.', '_', '-'")
	}
	sess, bearer, err := s.sessions.open(Native, req.TEE, req.WorkloadID)
	if err != nil {
		return err
	}
	s.Log.Debug("session opened", "session", sess.id.String(), "workload", req.WorkloadID, "tee", req.TEE, "peer", peer(r))
	return writeJSON(w, http.StatusOK, kbs.AuthAnswer{
		Session: bearer, Nonce: sess.nonce[:],
		ExpiresIn: int(s.SessionLife.Seconds()), ServerTime: s.Clock().UTC(),
	})
}

// attest appraises the session's Evidence. The nonce is spent as soon as the
// request can be read, whatever comes of it.
func (s *Server) attest(w http.ResponseWriter, r *http.Request) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	var req kbs.AttestRequest
	if err := readJSON(w, r, kbs.MaxAttestBody, &req); err != nil {
		return err
	}
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
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the evidence does not satisfy the workload's rules", Session: sess.id.String()}
	}
	err = s.sessions.grant(r.Context(), sess, grant{
		workloadID: sess.workloadID, registration: a.registration,
		reportData: a.reportData, teeKey: a.teeKey, left: s.ReleasesPerSession,
	})
	if err != nil {
		return sessionProblem(err, sess)
	}
	return writeJSON(w, http.StatusOK, kbs.AttestAnswer{Result: kbs.Affirming})
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

// key releases the session's DiskKey, sealed to the TEEKey that was attested.
func (s *Server) key(w http.ResponseWriter, r *http.Request) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	if r.PathValue("id") != sess.workloadID {
		return &refusal.Error{Code: kbs.CodeForbidden, Detail: "the session is for another workload", Session: sess.id.String()}
	}
	g, err := s.sessions.take(r.Context(), sess, sess.workloadID)
	if err != nil {
		return sessionProblem(err, sess)
	}
	k, err := s.fetch(r.Context(), sess, g)
	if err != nil {
		return err
	}
	defer k.Wipe()
	s.Log.Info("key released", "session", sess.id.String(), "workload", g.workloadID, "peer", peer(r), "releases_left", g.left)
	return s.writeSealed(w, g, kbs.ReleaseName(g.workloadID), k)
}

// fetch gets a granted session's DiskKey if the workload still is what was
// appraised.
func (s *Server) fetch(ctx context.Context, sess *session, g grant) (secret.Bytes, error) {
	k, err := s.Store.Release(ctx, g.workloadID, g.registration, sess.id.String())
	if err != nil {
		return secret.Bytes{}, releaseProblem(err, sess)
	}
	return k, nil
}

func (s *Server) session(r *http.Request) (*session, error) {
	b := bearer(r)
	if b.Len() == 0 {
		return nil, refusal.New(kbs.CodeUnauthorized, "no session: send Authorization: Bearer SESSION")
	}
	sess, err := s.sessions.parse(Native, b.Reveal())
	if err != nil {
		return nil, refusal.New(kbs.CodeSessionExpired, "%v", err)
	}
	return sess, nil
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

// acceptedKEMs are those that resist a quantum computer: what is released
// here may be recorded today and opened in twenty years.
var acceptedKEMs = []hpke.KEM{hpke.MLKEM768X25519(), hpke.MLKEM768P256(), hpke.MLKEM1024P384()}

// parseTEEKey returns nil for a key that is not accepted.
func parseTEEKey(k kbs.TEEKey) hpke.PublicKey {
	i := slices.IndexFunc(acceptedKEMs, func(x hpke.KEM) bool { return x.ID() == k.KEM })
	if i < 0 {
		return nil
	}
	pub, err := acceptedKEMs[i].NewPublicKey(k.Public)
	if err != nil {
		return nil
	}
	return pub
}
