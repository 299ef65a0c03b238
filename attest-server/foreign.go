package attestserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// foreignAttest is a request to attest in another dialect, decoded.
type foreignAttest struct {
	nonce      string // as the guest repeats it
	wantNonce  string
	recipient  recipient.Recipient // nil for a key that is not accepted
	keyGot     string              // for the owner
	keyWant    string
	reportData kbs.ReportData // that alone will be accepted
	parsed     *verifier.Parsed
	parseError error
	shapes     []string // of Evidence that fit the session's TEE
	accepts    []kbs.RegistrationType
}

// attestForeign spends the session's nonce, appraises, records, and grants.
// nil means that the session may fetch its workload's key.
func (s *Server) attestForeign(r *http.Request, sess *session, req foreignAttest) error {
	if err := s.acquire(r.Context()); err != nil {
		return err
	}
	defer s.release()
	if err := s.sessions.use(r.Context(), sess); err != nil {
		return sessionProblem(err, sess)
	}
	a, err := s.appraiseForeign(r.Context(), sess, req)
	if err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the evidence could not be appraised now", Session: sess.id.String(), Cause: err}
	}
	if err := s.record(r, sess, a); err != nil {
		return err
	}
	if !a.granted() {
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "attestation denied: ccrun explain " + sess.id.String(), Session: sess.id.String()}
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

// appraiseForeign is appraise for guests that do not say which workload they
// are, or whose word for it is not bound into the Evidence: the launch digest
// says it.
func (s *Server) appraiseForeign(ctx context.Context, sess *session, req foreignAttest) (*appraisal, error) {
	a := &appraisal{at: s.Clock().UTC(), recipient: req.recipient, reportData: req.reportData}
	if !a.foreignSession(sess, req) {
		return a, nil
	}
	ok, err := a.verify(func() (*verifier.Claims, error) {
		return req.parsed.Verify(ctx, verifier.ByTEE(s.Verifiers), a.at)
	}, sess.tee)
	if !ok {
		return a, err
	}
	w, err := s.Store.WorkloadByDigest(ctx, a.claims.LaunchDigest)
	if errors.Is(err, store.ErrNotFound) {
		a.add("registered", false, "a workload with this launch digest", a.claims.LaunchDigest.String(),
			"register the guest's measurement, or it is not the guest you think")
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	sess.workloadID = w.Registration.WorkloadID
	a.registration = w.Digest
	a.add("registered", true, "a workload with this launch digest", sess.workloadID, "")
	a.kind(w.Registration.Type, req.accepts...)
	a.named(sess)
	a.notRevoked(w)
	return a, s.compare(a, w)
}

// foreignSession checks what needs no Evidence to be verified.
func (a *appraisal) foreignSession(sess *session, req foreignAttest) bool {
	fresh := req.wantNonce != "" && subtle.ConstantTimeCompare([]byte(req.nonce), []byte(req.wantNonce)) == 1
	ok := a.add("session_nonce", fresh, "the nonce of this session", yesNo(fresh, "the same", "another"),
		"the guest answered with another session's nonce: replayed Evidence, or a confused proxy")
	ok = a.add("tee_key", req.recipient != nil, req.keyWant, req.keyGot, "the client is of a kind or configuration this server does not know") && ok
	var refused *verifier.Error
	switch {
	case errors.As(req.parseError, &refused):
		a.take(refused.Result(sess.tee).Rules)
		return false
	case req.parseError != nil || req.parsed == nil:
		return a.add("evidence_format", false, strings.Join(req.shapes, " or "), "unreadable", "the client is not one this server knows")
	}
	fits := false
	for _, shape := range req.shapes {
		fits = fits || shape == req.parsed.Shape
	}
	return a.add("session_tee", fits, strings.Join(req.shapes, " or "), req.parsed.Shape, "the guest announced another TEE than it has") && ok
}

// named wants the workload to be the one that a legacy guest asked for.
func (a *appraisal) named(sess *session) {
	if sess.dialect != Legacy {
		return
	}
	same := nameHash(sess.workloadID) == sess.named
	a.add("workload_id", same, sess.workloadID, yesNo(same, "the same", "another"), "the guest's disk names another workload than the one with its measurement")
}

// releaseForeign seals the DiskKey of workload id in the session's dialect.
func (s *Server) releaseForeign(r *http.Request, sess *session, id string) ([]byte, error) {
	g, err := s.sessions.take(r.Context(), sess, id)
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	if g.recipient == nil {
		return nil, errors.New("a session of another dialect")
	}
	k, err := s.fetch(r.Context(), sess, g)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	b, err := g.recipient.Seal(s.Rand, k.Reveal())
	if err != nil {
		return nil, err
	}
	s.Log.Info("key released", "session", sess.id.String(), "workload", id, "dialect", sess.dialect, "peer", peer(r), "releases_left", g.left)
	return b, nil
}

// stagedForeign is releaseForeign for the DiskKey of a rotation under way.
func (s *Server) stagedForeign(r *http.Request, sess *session, id string) ([]byte, error) {
	g, err := s.sessions.take(r.Context(), sess, id)
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	if g.recipient == nil {
		return nil, errors.New("a session of another dialect")
	}
	k, err := s.fetchStaged(r, sess, g)
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	s.Log.Info("staged key released", "session", sess.id.String(), "workload", id, "dialect", sess.dialect, "peer", peer(r), "releases_left", g.left)
	return g.recipient.Seal(s.Rand, k.Reveal())
}

// resourceForeign seals a resource in the session's dialect.
func (s *Server) resourceForeign(r *http.Request, sess *session, name string) ([]byte, error) {
	g, err := s.sessions.takeResource(r.Context(), sess)
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	id, err := kbs.ParseResourceID(name)
	if err != nil {
		return nil, trusteeRefusal("PluginInternalError", kbs.CodeNotFound, "no such resource: %v", err)
	}
	v, err := s.fetchResource(r, sess, g, id)
	if err != nil {
		return nil, err
	}
	defer v.Wipe()
	return g.recipient.Seal(s.Rand, v.Reveal())
}
