package attestserver

import (
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// openVolume answers with the key of one of the session's workload's volumes.
func (n *native) openVolume(w http.ResponseWriter, r *http.Request) error {
	sess, err := n.workloadSession(r)
	if err != nil {
		return err
	}
	name, err := volumeName(r)
	if err != nil {
		return err
	}
	var req kbs.VolumeOpenRequest
	if err := answer.ReadJSON(w, r, kbs.MaxVolumeBody, &req); err != nil {
		return err
	}
	fresh := secret.New(req.Key)
	defer fresh.Wipe()
	if fresh.Len() != kbs.VolumeKeyBytes {
		return refusal.New(kbs.CodeBadRequest, "volume key of %d bytes, expected %d", fresh.Len(), kbs.VolumeKeyBytes)
	}
	b, err := n.engine.OpenVolume(r.Context(), release.Guest{Session: sess, Peer: answer.Peer(r)}, name, store.VolumeKey{Key: fresh, Rekeys: req.Rekeys})
	if err != nil {
		return err
	}
	answer.SetCheckpoint(w, n.engine.Anchor.Checkpoint())
	return answer.WriteBody(w, http.StatusOK, b)
}

// stageVolume judges what a guest found where its volume should be.
func (n *native) stageVolume(w http.ResponseWriter, r *http.Request) error {
	var req kbs.VolumeStageRequest
	v, err := heldVolume(w, r, &req)
	if err != nil {
		return err
	}
	defer v.Token.Wipe()
	next, err := n.engine.StageVolume(r.Context(), v, req)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.VolumeStageAnswer{Generation: next})
}

func (n *native) confirmVolume(w http.ResponseWriter, r *http.Request) error {
	var req kbs.VolumeConfirmRequest
	v, err := heldVolume(w, r, &req)
	if err != nil {
		return err
	}
	defer v.Token.Wipe()
	if err := n.engine.ConfirmVolume(r.Context(), v, req); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.VolumeConfirmAnswer{Result: kbs.Confirmed})
}

func (n *native) volumeRekeyed(w http.ResponseWriter, r *http.Request) error {
	v, err := heldVolume(w, r, nil)
	if err != nil {
		return err
	}
	defer v.Token.Wipe()
	if err := n.engine.VolumeRekeyed(r.Context(), v); err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.VolumeConfirmAnswer{Result: kbs.Confirmed})
}

// heldVolume reads a request of who has a volume's token, and what is in it into body.
func heldVolume(w http.ResponseWriter, r *http.Request, body any) (v release.HeldVolume, err error) {
	if v.Token = answer.Bearer(r); v.Token.Len() == 0 {
		return v, refusal.New(kbs.CodeUnauthorized, "no volume token: send Authorization: Bearer TOKEN")
	}
	if v.Workload = r.PathValue("id"); !kbs.ValidWorkloadID(v.Workload) {
		return v, refusal.New(kbs.CodeBadRequest, "workload id: expected up to 128 letters, digits, '.', '_', '-'")
	}
	if v.Name, err = volumeName(r); err != nil {
		return v, err
	}
	if body == nil {
		return v, nil
	}
	return v, answer.ReadJSON(w, r, kbs.MaxVolumeBody, body)
}

func volumeName(r *http.Request) (string, error) {
	if name := r.PathValue("name"); kbs.ValidVolumeName(name) {
		return name, nil
	}
	return "", refusal.New(kbs.CodeBadRequest, "volume name: expected up to 63 letters, digits, '.', '_', '-', the first a letter or digit")
}
