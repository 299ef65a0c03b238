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
	"github.com/ccrun/ccrun/attest-server/release"
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
	if err := s.engine.Attest(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, nativeRequest(sess, req)); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.AttestAnswer{Result: kbs.Affirming})
}

// nativeRequest checks what the request claims against the session it came in,
// and computes the report data that alone will be accepted.
func nativeRequest(sess *session.Session, req kbs.AttestRequest) release.Request {
	key := req.RuntimeData.TEEKey
	a := release.Request{
		Recipient: recipient.ParseTEEKey(key), Runtime: &req.RuntimeData, Accepts: []kbs.RegistrationType{kbs.TypeNative},
		Verify: func(ctx context.Context, v verifier.Verifier, at time.Time) (*verifier.Claims, error) {
			return v.Verify(ctx, req.Evidence, at)
		},
		Denial: "the evidence does not satisfy the workload's rules",
	}
	a.Checks.AddNonce(sess.Nonce[:], req.RuntimeData.Nonce)
	a.Checks.Add("session_tee", req.Evidence.TEE == sess.TEE, string(sess.TEE), strconv.QuoteToGraphic(string(req.Evidence.TEE)),
		"the guest announced another TEE than it has")
	a.Checks.Add("tee_key", a.Recipient != nil, "an ML-KEM hybrid HPKE public key", fmt.Sprintf("KEM 0x%04x, %d bytes", key.KEM, len(key.Public)),
		"the guest agent is too old, too new, or not ours")
	rd, err := kbs.Binding(sess.WorkloadID, req.RuntimeData)
	if err != nil {
		a.Checks.Add("runtime_data", false, "complete runtime data", err.Error(), "the guest agent is not ours")
	}
	a.ReportData = rd
	return a
}

// key releases the session's DiskKey.
func (s *Server) key(w http.ResponseWriter, r *http.Request) error {
	return s.nativeDiskKey(w, r, s.engine.DiskKey)
}

// stagedKey releases the DiskKey of a rotation under way.
func (s *Server) stagedKey(w http.ResponseWriter, r *http.Request) error {
	return s.nativeDiskKey(w, r, s.engine.StagedDiskKey)
}

// nativeDiskKey answers with what get yields for the session's workload, which
// the path must name.
func (s *Server) nativeDiskKey(w http.ResponseWriter, r *http.Request, get func(context.Context, release.Guest, string) ([]byte, error)) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	if r.PathValue("id") != sess.WorkloadID {
		return &refusal.Error{Code: kbs.CodeForbidden, Detail: "the session is for another workload", Session: sess.ID.String()}
	}
	b, err := get(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, sess.WorkloadID)
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
	b, err := s.engine.Resource(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, id.String())
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
