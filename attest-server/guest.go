package attestserver

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// auth opens a session. It does not ask the store whether the workload
// exists: who has no Evidence learns nothing of what is registered.
func (s *Server) auth(w http.ResponseWriter, r *http.Request) error {
	var req kbs.AuthRequest
	if err := answer.ReadJSON(w, r, kbs.MaxAuthBody, &req); err != nil {
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
	sess, bearer, err := s.sessions.Open(session.Native, req.TEE, req.WorkloadID)
	if err != nil {
		return err
	}
	s.Log.Debug("session opened", "session", sess.ID.String(), "workload", req.WorkloadID, "tee", req.TEE, "peer", answer.Peer(r))
	return answer.WriteJSON(w, http.StatusOK, kbs.AuthAnswer{
		Session: bearer, Nonce: sess.Nonce[:],
		ExpiresIn: int(s.SessionLife.Seconds()), ServerTime: s.Clock().UTC(),
	})
}

// nativeAttest appraises the session's Evidence. The nonce is spent as soon as
// the request can be read, whatever comes of it.
func (s *Server) nativeAttest(w http.ResponseWriter, r *http.Request) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	var req kbs.AttestRequest
	if err := answer.ReadJSON(w, r, kbs.MaxAttestBody, &req); err != nil {
		return err
	}
	if err := s.attest(r, sess, nativeRequest(sess, req)); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.AttestAnswer{Result: kbs.Affirming})
}

// nativeRequest checks what the request claims against the session it came in,
// and computes the report data that alone will be accepted.
func nativeRequest(sess *session.Session, req kbs.AttestRequest) attestRequest {
	key := req.RuntimeData.TEEKey
	a := attestRequest{
		recipient: recipient.ParseTEEKey(key), runtime: &req.RuntimeData, accepts: []kbs.RegistrationType{kbs.TypeNative},
		verify: func(ctx context.Context, v verifier.Verifier, at time.Time) (*verifier.Claims, error) {
			return v.Verify(ctx, req.Evidence, at)
		},
		denial: "the evidence does not satisfy the workload's rules",
	}
	a.checks.addNonce(sess.Nonce[:], req.RuntimeData.Nonce)
	a.checks.add("session_tee", req.Evidence.TEE == sess.TEE, string(sess.TEE), strconv.QuoteToGraphic(string(req.Evidence.TEE)),
		"the guest announced another TEE than it has")
	a.checks.add("tee_key", a.recipient != nil, "an ML-KEM hybrid HPKE public key", fmt.Sprintf("KEM 0x%04x, %d bytes", key.KEM, len(key.Public)),
		"the guest agent is too old, too new, or not ours")
	rd, err := kbs.Binding(sess.WorkloadID, req.RuntimeData)
	if err != nil {
		a.checks.add("runtime_data", false, "complete runtime data", err.Error(), "the guest agent is not ours")
	}
	a.reportData = rd
	return a
}

// key releases the session's DiskKey.
func (s *Server) key(w http.ResponseWriter, r *http.Request) error {
	return s.nativeDiskKey(w, r, s.diskKey)
}

// stagedKey releases the DiskKey of a rotation under way.
func (s *Server) stagedKey(w http.ResponseWriter, r *http.Request) error {
	return s.nativeDiskKey(w, r, s.stagedDiskKey)
}

// nativeDiskKey answers with what release yields for the session's workload,
// which the path must name.
func (s *Server) nativeDiskKey(w http.ResponseWriter, r *http.Request, release func(*http.Request, *session.Session, string) ([]byte, error)) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	if r.PathValue("id") != sess.WorkloadID {
		return &refusal.Error{Code: kbs.CodeForbidden, Detail: "the session is for another workload", Session: sess.ID.String()}
	}
	b, err := release(r, sess, sess.WorkloadID)
	if err != nil {
		return err
	}
	return answer.WriteBody(w, http.StatusOK, b)
}

func (s *Server) releaseResource(w http.ResponseWriter, r *http.Request) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	id, err := resourceID(r)
	if err != nil {
		return err
	}
	b, err := s.resource(r, sess, id.String())
	if err != nil {
		return err
	}
	return answer.WriteBody(w, http.StatusOK, b)
}

func (s *Server) session(r *http.Request) (*session.Session, error) {
	b := answer.Bearer(r)
	if b.Len() == 0 {
		return nil, refusal.New(kbs.CodeUnauthorized, "no session: send Authorization: Bearer SESSION")
	}
	sess, err := s.sessions.Parse(session.Native, b.Reveal())
	if err != nil {
		return nil, refusal.New(kbs.CodeSessionExpired, "%v", err)
	}
	return sess, nil
}
