package attestserver

import (
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
)

// secrets answers with several resources' values.
func (n *native) secrets(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	var req kbs.SecretsRequest
	if err := answer.ReadJSON(w, r, kbs.MaxSecretsBody, &req); err != nil {
		return err
	}
	ids, err := kbs.ParseSecretNames(req.Names)
	if err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	b, err := n.engine.Secrets(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, ids)
	if err != nil {
		return err
	}
	answer.SetCheckpoint(w, n.engine.Anchor.Checkpoint())
	return answer.WriteBody(w, http.StatusOK, b)
}
