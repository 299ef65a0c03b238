package attestserver

import (
	"bytes"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
)

// secrets answers with several resources' values.
func (n *native) secrets(w http.ResponseWriter, r *http.Request) error {
	renewal, renewed, err := n.renewal(r)
	if err != nil {
		return err
	}
	if renewed {
		return n.renewedSecrets(w, r, renewal)
	}
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	ids, err := secretNames(w, r)
	if err != nil {
		return err
	}
	b, err := n.engine.Secrets(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, ids)
	return n.released(w, b, err)
}

func secretNames(w http.ResponseWriter, r *http.Request) ([]kbs.ResourceID, error) {
	var req kbs.SecretsRequest
	if err := answer.ReadJSON(w, r, kbs.MaxSecretsBody, &req); err != nil {
		return nil, err
	}
	ids, err := kbs.ParseSecretNames(req.Names)
	if err != nil {
		return nil, refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return ids, nil
}

func (n *native) renewedSecrets(w http.ResponseWriter, r *http.Request, by session.Renewal) error {
	ids, err := secretNames(w, r)
	if err != nil {
		return err
	}
	b, err := n.engine.RenewedSecrets(r.Context(), by, answer.Peer(r), ids)
	return n.released(w, b, err)
}

func (n *native) released(w http.ResponseWriter, b []byte, err error) error {
	if err != nil {
		return err
	}
	answer.SetCheckpoint(w, n.engine.Anchor.Checkpoint())
	return answer.WriteBody(w, http.StatusOK, b)
}

// ticket answers with what the guest gets secrets with after its session.
func (n *native) ticket(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	t, err := n.engine.Ticket(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)})
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.RenewalAnswer{Ticket: t})
}

// renew answers with a bearer that only the ticket's guest can read.
func (n *native) renew(w http.ResponseWriter, r *http.Request) error {
	var req kbs.RenewRequest
	if err := answer.ReadJSON(w, r, kbs.MaxRenewBody, &req); err != nil {
		return err
	}
	b, err := n.engine.Renew(r.Context(), req.Ticket, answer.Peer(r))
	return n.released(w, b, err)
}

// token answers a running guest with what its Evidence was found to be, signed. It
// is the appraisal of its start.
func (n *native) token(w http.ResponseWriter, r *http.Request) error {
	x, renewed, err := n.renewal(r)
	if err != nil {
		return err
	}
	if !renewed {
		return refusal.New(kbs.CodeUnauthorized, "a token is for a bearer of POST /v1/renew")
	}
	if err := n.engine.StillGranted(r.Context(), x, answer.Peer(r)); err != nil {
		return err
	}
	return n.signed(w, r, x.Session.String())
}

// renewal is what the request's bearer says, if it is one of renew's. The path must
// name its workload.
func (n *native) renewal(r *http.Request) (x session.Renewal, ok bool, err error) {
	b := answer.Bearer(r)
	if !bytes.HasPrefix(b.Reveal(), []byte(session.BearerPrefix)) {
		return x, false, nil
	}
	x, err = n.engine.Renewals.ParseBearer(string(b.Reveal()))
	switch {
	case err != nil:
		return x, true, refusal.New(kbs.CodeSessionExpired, "%v", err)
	case r.PathValue("id") != x.WorkloadID:
		return x, true, refusal.New(kbs.CodeForbidden, "the bearer is for another workload")
	}
	return x, true, nil
}
