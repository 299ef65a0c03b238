package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/keyslot"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// RotationStore is what rotations need of a store. Errors are those of package
// store: ErrNotFound, ErrRevoked, ErrNoRotation.
type RotationStore interface {
	Workload(ctx context.Context, id string) (store.Workload, error)
	StageRotation(ctx context.Context, id, actor string) (store.Rotation, error)
	CommitRotation(ctx context.Context, id, rotation, image, actor string) error
	AbortRotation(ctx context.Context, id, rotation, actor string) error
}

// Rotations gives workloads new DiskKeys. All fields are needed.
type Rotations struct {
	Store RotationStore
	Rand  io.Reader
}

// rotate takes one step of a rotation. Neither DiskKey is in any answer: the
// keyslot is sealed anew here, from one DiskKey to the other.
func (s *Rotations) rotate(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var req kbs.RotateRequest
	if err := answer.ReadJSON(w, r, kbs.MaxRotateBody, &req); err != nil {
		return err
	}
	id := r.PathValue("id")
	// A commit destroys a key: with another publisher's token, whoever stole it
	// could lock every image without publishing any.
	if err := mayDestroy(r.Context(), s.Store, t, id); err != nil {
		return err
	}
	var step kbs.RotateAnswer
	var err error
	switch {
	case req.Stage != nil && req.Commit == nil && req.Abort == nil:
		step, err = s.stage(r.Context(), id, req.Stage.Keyslot, t)
	case req.Commit != nil && req.Stage == nil && req.Abort == nil:
		if strings.ContainsRune(req.Commit.Image, 0) {
			return refusal.New(kbs.CodeBadRequest, "image with a NUL character")
		}
		if len(req.Commit.Image) > 512 {
			return refusal.New(kbs.CodeBadRequest, "image of %d bytes, at most 512 allowed", len(req.Commit.Image))
		}
		step.Rotation = req.Commit.Rotation
		err = s.Store.CommitRotation(r.Context(), id, req.Commit.Rotation, req.Commit.Image, actor(t))
	case req.Abort != nil && req.Stage == nil && req.Commit == nil:
		step.Rotation = req.Abort.Rotation
		err = s.Store.AbortRotation(r.Context(), id, req.Abort.Rotation, actor(t))
	default:
		return refusal.New(kbs.CodeBadRequest, "expected exactly one of stage, commit and abort")
	}
	if err != nil {
		return rotateProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, step)
}

// stage seals the keyslot under the staged DiskKey, or says that it already is.
func (s *Rotations) stage(ctx context.Context, id string, slot kbs.Keyslot, t store.Token) (kbs.RotateAnswer, error) {
	if err := keyslot.Check(slot); err != nil {
		return kbs.RotateAnswer{}, refusal.New(kbs.CodeBadRequest, "keyslot: %v", err)
	}
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
	step := kbs.RotateAnswer{Rotation: rot.ID, StagedAt: &rot.StagedAt}
	kdf, area, err := keyslot.Reseal(slot, rot.Current, rot.Staged, s.Rand)
	if err == nil {
		step.KDF, step.Area = &kdf, area
		return step, nil
	}
	if errors.Is(err, keyslot.ErrNotOpened) && keyslot.Opens(slot, rot.Staged) == nil {
		step.Already = true
		return step, nil
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
