package release

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// OpenVolume is the sealed grant of a volume of the session's workload. fresh
// becomes the volume's key if it has none.
func (e *Engine) OpenVolume(ctx context.Context, guest Guest, name string, fresh store.VolumeKey) ([]byte, error) {
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	sess := guest.Session
	g, err := e.Sessions.Take(ctx, sess, session.Claim{Resource: true})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	v, err := e.Store.OpenVolume(ctx, g.WorkloadID, name, g.Registration, asking(sess, g), fresh)
	switch {
	case errors.Is(err, store.ErrNotApproved):
		return nil, &refusal.Error{Code: kbs.CodeForbidden, Detail: "an approval of the disk key for this workload is missing", Session: sess.ID.String(), Cause: err}
	case errors.Is(err, store.ErrLimit):
		return nil, &refusal.Error{Code: kbs.CodeQuota, Detail: "the workload has too many volumes, or may get nothing more", Session: sess.ID.String(), Cause: err}
	case err != nil:
		return nil, releaseProblem(err, sess)
	}
	defer clear(v.Key)
	defer clear(v.Next)
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	e.Log.Info("volume opened", "session", sess.ID.String(), "workload", g.WorkloadID, "volume", name, "generation", v.Generation, "peer", guest.Peer)
	return e.seal(g, kbs.VolumeName(g.WorkloadID, name), secret.New(plain))
}

// HeldVolume is a volume and the token of who opened it.
type HeldVolume struct {
	Workload, Name string
	Token          secret.Bytes
}

// maxGeneration is far from where numbers end.
const maxGeneration = 1 << 60

// StageVolume says which generation to write into a volume, if what was found
// there is as it was left.
func (e *Engine) StageVolume(ctx context.Context, v HeldVolume, r kbs.VolumeStageRequest) (uint64, error) {
	found := []string{kbs.VolumeEmpty, kbs.VolumeGeneration, kbs.VolumeDamaged, kbs.VolumeForeign}
	if !slices.Contains(found, r.Found) || (r.Found == kbs.VolumeGeneration) != (r.Generation != 0) || r.Generation > maxGeneration {
		return 0, refusal.New(kbs.CodeBadRequest, "found: expected one of %v, and with %s alone a generation from 1 to %d", found, kbs.VolumeGeneration, uint64(maxGeneration))
	}
	next, err := e.Store.StageVolume(ctx, v.Workload, v.Name, v.Token, r)
	if err != nil {
		return 0, e.volumeProblem(err, v)
	}
	return next, nil
}

// ConfirmVolume makes a staged generation the volume's.
func (e *Engine) ConfirmVolume(ctx context.Context, v HeldVolume, r kbs.VolumeConfirmRequest) error {
	if err := e.Store.ConfirmVolume(ctx, v.Workload, v.Name, v.Token, r); err != nil {
		return e.volumeProblem(err, v)
	}
	e.Log.Info("volume generation", "workload", v.Workload, "volume", v.Name, "generation", r.Generation, "closed", r.Closed)
	return nil
}

// VolumeRekeyed gives up the key that the volume had.
func (e *Engine) VolumeRekeyed(ctx context.Context, v HeldVolume) error {
	if err := e.Store.VolumeRekeyed(ctx, v.Workload, v.Name, v.Token); err != nil {
		return e.volumeProblem(err, v)
	}
	e.Log.Info("volume has a new key", "workload", v.Workload, "volume", v.Name)
	return nil
}

func (e *Engine) volumeProblem(err error, v HeldVolume) error {
	switch {
	case errors.Is(err, store.ErrVolumeTaken):
		return &refusal.Error{Code: kbs.CodeVolumeTaken, Detail: "the token opens no volume: another guest has opened it since", Cause: err}
	case errors.Is(err, store.ErrRolledBack):
		e.Log.Warn("volume refused", "workload", v.Workload, "volume", v.Name, "cause", err)
		return &refusal.Error{Code: kbs.CodeVolumeRolledBack, Detail: err.Error(), Cause: err}
	case errors.Is(err, store.ErrChanged):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: err.Error(), Cause: err}
	}
	return err
}
