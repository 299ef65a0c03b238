package attestserver

import (
	"context"
	"crypto/hpke"
	"errors"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/keyslot"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// rotateWorkload takes one step of a rotation. Neither DiskKey is in any
// answer: the keyslot is sealed anew here, from one DiskKey to the other.
func (s *Server) rotateWorkload(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var req kbs.RotateRequest
	if err := readJSON(w, r, kbs.MaxRotateBody, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	// A commit destroys a key: with another publisher's token, whoever stole it
	// could lock every image without publishing any.
	if err := s.mayDestroy(r.Context(), t, id); err != nil {
		return err
	}
	var answer kbs.RotateAnswer
	var err error
	switch {
	case req.Stage != nil && req.Commit == nil && req.Abort == nil:
		answer, err = s.stageRotation(r.Context(), id, req.Stage.Keyslot, t)
	case req.Commit != nil && req.Stage == nil && req.Abort == nil:
		if strings.ContainsRune(req.Commit.Image, 0) {
			return refusal.New(kbs.CodeBadRequest, "image with a NUL character")
		}
		if len(req.Commit.Image) > 512 {
			return refusal.New(kbs.CodeBadRequest, "image of %d bytes, at most 512 allowed", len(req.Commit.Image))
		}
		answer.Rotation = req.Commit.Rotation
		err = s.Store.CommitRotation(r.Context(), id, req.Commit.Rotation, req.Commit.Image, actor(t))
	case req.Abort != nil && req.Stage == nil && req.Commit == nil:
		answer.Rotation = req.Abort.Rotation
		err = s.Store.AbortRotation(r.Context(), id, req.Abort.Rotation, actor(t))
	default:
		return refusal.New(kbs.CodeBadRequest, "expected exactly one of stage, commit and abort")
	}
	if err != nil {
		return rotateProblem(err)
	}
	return writeJSON(w, http.StatusOK, answer)
}

// stageRotation seals the keyslot under the staged DiskKey, or says that it
// already is.
func (s *Server) stageRotation(ctx context.Context, id string, slot kbs.Keyslot, t store.Token) (kbs.RotateAnswer, error) {
	if err := keyslot.Check(slot); err != nil {
		return kbs.RotateAnswer{}, refusal.New(kbs.CodeBadRequest, "keyslot: %v", err)
	}
	if err := s.acquire(ctx); err != nil {
		return kbs.RotateAnswer{}, err
	}
	defer s.release()
	// The other dialects' guests know one DiskKey, so that between publishing
	// and commit none of them could start; and their disks are not measured,
	// so that nobody could say which image has which keyslot.
	have, err := s.Store.Workload(ctx, id)
	if err != nil {
		return kbs.RotateAnswer{}, err
	}
	if t := have.Registration.Type; t != kbs.TypeNative {
		return kbs.RotateAnswer{}, refusal.New(kbs.CodeConflict, "workload %s is registered for the %s dialect, whose guests can ask for one disk key only: "+
			"encrypt the disk anew, register it under another id, then revoke this one", id, t)
	}
	rot, err := s.Store.StageRotation(ctx, id, actor(t))
	if err != nil {
		return kbs.RotateAnswer{}, err
	}
	defer rot.Wipe()
	answer := kbs.RotateAnswer{Rotation: rot.ID, StagedAt: &rot.StagedAt}
	kdf, area, err := keyslot.Reseal(slot, rot.Current, rot.Staged, s.Rand)
	if err == nil {
		answer.KDF, answer.Area = &kdf, area
		return answer, nil
	}
	if errors.Is(err, keyslot.ErrNotOpened) && keyslot.Opens(slot, rot.Staged) == nil {
		answer.Already = true
		return answer, nil
	}
	return kbs.RotateAnswer{}, err
}

func rotateProblem(err error) error {
	switch {
	case errors.Is(err, keyslot.ErrNotOpened):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: "the disk's keyslot opens neither with the workload's disk key nor with the staged one: is it the image that is registered?"}
	case errors.Is(err, store.ErrNoRotation):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: err.Error()}
	case errors.Is(err, store.ErrRevoked):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: "the workload is revoked"}
	}
	return workloadProblem(err)
}

// stagedKey releases the DiskKey of a rotation under way, to a guest whose
// disk does not open with the one in use.
func (s *Server) stagedKey(w http.ResponseWriter, r *http.Request) error {
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
	k, err := s.fetchStaged(r, sess, g)
	if err != nil {
		return err
	}
	defer k.Wipe()
	s.Log.Info("staged key released", "session", sess.id.String(), "workload", g.workloadID, "peer", peer(r), "releases_left", g.left)
	return s.writeSealed(w, g, kbs.StagedName(g.workloadID), k)
}

// fetchStaged is the DiskKey of the rotation that the grant's workload is under.
func (s *Server) fetchStaged(r *http.Request, sess *session, g grant) (secret.Bytes, error) {
	have, err := s.Store.Workload(r.Context(), g.workloadID)
	if err == nil && have.Digest == g.registration && have.Rotation == "" {
		return secret.Bytes{}, &refusal.Error{Code: kbs.CodeNotFound, Kind: "PluginInternalError", Detail: "the workload's disk key is not being rotated", Session: sess.id.String()}
	}
	k, err := s.Store.ReleaseStaged(r.Context(), g.workloadID, g.registration, sess.id.String())
	if err != nil {
		return secret.Bytes{}, releaseProblem(err, sess)
	}
	return k, nil
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

// writeSealed answers with plain, sealed to the grant's TEEKey under name.
func (s *Server) writeSealed(w http.ResponseWriter, g grant, name string, plain secret.Bytes) error {
	enc, sender, err := hpke.NewSender(g.teeKey, hpke.HKDFSHA256(), hpke.AES256GCM(), kbs.ReleaseInfo(g.reportData, name))
	if err != nil {
		return err
	}
	sealed, err := sender.Seal(nil, plain.Reveal())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, kbs.Sealed{Enc: enc, Ciphertext: sealed, ServerTime: s.Clock().UTC()})
}
