package attestserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// native answers guests in the native dialect.
type native struct {
	sessions *session.Sessions
	engine   *release.Engine
	life     time.Duration // of a session
	clock    func() time.Time
	log      *slog.Logger
	// signed answers with a session's result as EAR.
	signed func(w http.ResponseWriter, r *http.Request, session string) error
}

func (n *native) routes(mux *answer.Router, answers answer.Responder) {
	mux.HandleFunc("POST /v1/auth", answers.Handle(n.auth))
	mux.HandleFunc("POST /v1/attest", answers.Handle(n.attest))
	mux.HandleFunc("POST /v1/workloads/{id}/confirm", answers.Handle(n.confirm))
	mux.HandleFunc("POST /v1/workloads/{id}/report", answers.Handle(n.report))
	mux.HandleFunc("GET /v1/workloads/{id}/key", answers.Handle(n.diskKey(n.engine.DiskKey)))
	mux.HandleFunc("GET /v1/workloads/{id}/key/staged", answers.Handle(n.diskKey(n.engine.StagedDiskKey)))
	mux.HandleFunc("POST /v1/workloads/{id}/secrets", answers.Handle(n.secrets))
	mux.HandleFunc("POST /v1/workloads/{id}/renewal", answers.Handle(n.ticket))
	mux.HandleFunc("POST /v1/renew", answers.Handle(n.renew))
	mux.HandleFunc("GET /v1/workloads/{id}/token", answers.Handle(n.token))
	mux.HandleFunc("POST /v1/workloads/{id}/volumes/{name}/open", answers.Handle(n.openVolume))
	mux.HandleFunc("POST /v1/workloads/{id}/volumes/{name}/stage", answers.Handle(n.stageVolume))
	mux.HandleFunc("POST /v1/workloads/{id}/volumes/{name}/confirm", answers.Handle(n.confirmVolume))
	mux.HandleFunc("POST /v1/workloads/{id}/volumes/{name}/rekeyed", answers.Handle(n.volumeRekeyed))
}

// auth opens a session. It does not ask the store whether the workload
// exists: whoever has no Evidence learns nothing of what is registered.
func (n *native) auth(w http.ResponseWriter, r *http.Request) error {
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
	sess, bearer, err := n.sessions.Open(session.Native, req.TEE, req.WorkloadID)
	if err != nil {
		return err
	}
	n.log.Debug("session opened", "session", sess.ID.String(), "workload", req.WorkloadID, "tee", req.TEE, "peer", answer.Peer(r))
	return answer.WriteJSON(w, http.StatusOK, kbs.AuthAnswer{
		Session: bearer, Nonce: sess.Nonce[:],
		ExpiresIn: int(n.life.Seconds()), ServerTime: n.clock().UTC(),
	})
}

// attest appraises the session's Evidence. The nonce is spent as soon as
// the request can be read, whatever comes of it.
func (n *native) attest(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.session(r)
	if err != nil {
		return err
	}
	if err := n.sessions.Fresh(sess); err != nil { // before anything of it is read
		return &refusal.Error{Code: kbs.CodeSessionExpired, Detail: err.Error(), Session: sess.ID.String()}
	}
	var req kbs.AttestRequest
	if err := answer.ReadJSON(w, r, kbs.MaxAttestBody, &req); err != nil {
		return err
	}
	if err := n.engine.Attest(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, nativeRequest(sess, req)); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.AttestAnswer{Result: kbs.Affirming})
}

// nativeRequest checks what the request claims against the session it came in,
// and computes the report data that alone will be accepted.
func nativeRequest(sess *session.Session, req kbs.AttestRequest) release.Request {
	teeKey := req.RuntimeData.TEEKey
	q := release.Request{
		Recipient: recipient.ParseTEEKey(teeKey), Runtime: &req.RuntimeData, Accepts: []kbs.RegistrationType{kbs.TypeNative}, Raw: req.Evidence.Report,
		Verify: func(ctx context.Context, v verifier.Verifier, at time.Time) (*verifier.Claims, error) {
			return v.Verify(ctx, req.Evidence, at)
		},
		Denial: "the evidence does not satisfy the workload's rules",
	}
	q.Checks.AddNonce(sess.Nonce[:], req.RuntimeData.Nonce)
	q.Checks.Add("session_tee", req.Evidence.TEE == sess.TEE, string(sess.TEE), strconv.QuoteToGraphic(string(req.Evidence.TEE)),
		"the guest announced another TEE than it has")
	q.Checks.Add("tee_key", q.Recipient != nil, "an ML-KEM hybrid HPKE public key", fmt.Sprintf("KEM 0x%04x, %d bytes", teeKey.KEM, len(teeKey.Public)),
		"the guest agent is too old, too new, or not ours")
	rd, err := kbs.Binding(sess.WorkloadID, req.RuntimeData)
	if err != nil {
		q.Checks.Add("runtime_data", false, "complete runtime data", err.Error(), "the guest agent is not ours")
	}
	if k := req.RuntimeData.RenewalKey; k != nil {
		q.Checks.Add("renewal_key", recipient.ParseTEEKey(*k) != nil, "an ML-KEM hybrid HPKE public key", fmt.Sprintf("KEM 0x%04x, %d bytes", k.KEM, len(k.Public)),
			"the guest agent is too old, too new, or not ours")
	}
	q.ReportData = rd
	return q
}

// diskKey answers with what get releases to the session's workload, which the
// path must name.
func (n *native) diskKey(get func(context.Context, release.Guest, string) ([]byte, error)) answer.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		sess, err := n.workloadSession(r)
		if err != nil {
			return err
		}
		b, err := get(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, sess.WorkloadID)
		if err != nil {
			return err
		}
		answer.SetCheckpoint(w, n.engine.Anchor.Checkpoint())
		return answer.WriteBody(w, http.StatusOK, b)
	}
}

// confirm takes the guest's word that its disk opened.
func (n *native) confirm(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	if err := n.engine.Confirm(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, sess.WorkloadID); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.ConfirmAnswer{Result: kbs.Confirmed})
}

// config answers with the configuration of the session's workload.
func (n *native) config(w http.ResponseWriter, r *http.Request) error {
	if renewal, ok, err := n.renewal(r); ok || err != nil {
		if err != nil {
			return err
		}
		b, err := n.engine.RenewedConfig(r.Context(), renewal, answer.Peer(r))
		return n.released(w, b, err)
	}
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	b, err := n.engine.Config(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)})
	if err != nil {
		return err
	}
	answer.SetCheckpoint(w, n.engine.Anchor.Checkpoint())
	return answer.WriteBody(w, http.StatusOK, b)
}

// report takes a guest's word for its owner.
func (n *native) report(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	var report kbs.GuestReport
	if err := answer.ReadJSON(w, r, kbs.MaxReportBody, &report); err != nil {
		return err
	}
	if err := report.Validate(); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err := n.engine.Report(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, report); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.ReportAnswer{Session: sess.ID.String()})
}

// workloadSession is the request's session, which must be of the workload that
// the path names.
func (n *native) workloadSession(r *http.Request) (*session.Session, error) {
	sess, err := n.session(r)
	if err == nil && r.PathValue("id") != sess.WorkloadID {
		err = &refusal.Error{Code: kbs.CodeForbidden, Detail: "the session is for another workload", Session: sess.ID.String()}
	}
	return sess, err
}

// resource answers with a resource's value.
func (n *native) resource(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.session(r)
	if err != nil {
		return err
	}
	id, err := admin.ResourceID(r)
	if err != nil {
		return err
	}
	b, err := n.engine.Resource(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, id.String())
	if err != nil {
		return err
	}
	answer.SetCheckpoint(w, n.engine.Anchor.Checkpoint())
	return answer.WriteBody(w, http.StatusOK, b)
}

func (n *native) session(r *http.Request) (*session.Session, error) {
	b := answer.Bearer(r)
	if b.Len() == 0 {
		return nil, refusal.New(kbs.CodeUnauthorized, "no session: send Authorization: Bearer SESSION")
	}
	sess, err := n.sessions.Parse(session.Native, b.Reveal())
	if err != nil {
		return nil, refusal.New(kbs.CodeSessionExpired, "%v", err)
	}
	return sess, nil
}
