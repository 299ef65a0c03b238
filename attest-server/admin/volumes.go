package admin

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// VolumeStore is what volumes need of a store. Errors are those of package
// store: ErrNotFound.
type VolumeStore interface {
	Workload(ctx context.Context, id string) (store.Workload, error)
	Volumes(ctx context.Context, workload string) ([]kbs.VolumeStatus, error)
	AcceptRollback(ctx context.Context, workload, name, accepts, actor string) (kbs.VolumeStatus, error)
	RekeyVolume(ctx context.Context, workload, name, actor string) (kbs.VolumeStatus, error)
	ForgetVolume(ctx context.Context, workload, name, actor string) error
}

// Volumes shows owners their workloads' volumes. All fields are needed.
type Volumes struct {
	Store VolumeStore
	Log   *slog.Logger
}

func (s *Volumes) list(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	id := r.PathValue("id")
	if _, err := s.Store.Workload(r.Context(), id); err != nil {
		return workloadProblem(err)
	}
	all, err := s.Store.Volumes(r.Context(), id)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.VolumeList{Volumes: all})
}

// accept gives up what protects the data, and forget the data itself: both are
// the owner's or an admin's.
func (s *Volumes) accept(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, name, err := s.own(r, t)
	if err != nil {
		return err
	}
	var req kbs.VolumeAcceptRequest
	if err := answer.ReadJSON(w, r, kbs.MaxVolumeBody, &req); err != nil {
		return err
	}
	accepts := kbs.VolumeGeneration
	if req.Empty {
		accepts = kbs.VolumeEmpty
	}
	status, err := s.Store.AcceptRollback(r.Context(), id, name, accepts, actor(t))
	if err != nil {
		return workloadProblem(err)
	}
	s.Log.Warn("rollback of a volume accepted", "workload", id, "volume", name, "accepts", accepts, "by", actor(t))
	return answer.WriteJSON(w, http.StatusOK, status)
}

// rekey takes what the volume's key was, in the end: who may forget it may do so.
func (s *Volumes) rekey(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, name, err := s.own(r, t)
	if err != nil {
		return err
	}
	status, err := s.Store.RekeyVolume(r.Context(), id, name, actor(t))
	if err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("volume is to be rekeyed", "workload", id, "volume", name, "by", actor(t))
	return answer.WriteJSON(w, http.StatusOK, status)
}

func (s *Volumes) forget(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, name, err := s.own(r, t)
	if err != nil {
		return err
	}
	if err := s.Store.ForgetVolume(r.Context(), id, name, actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("volume forgotten", "workload", id, "volume", name, "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Volumes) own(r *http.Request, t store.Token) (id, name string, err error) {
	id, name = r.PathValue("id"), r.PathValue("name")
	if !kbs.ValidVolumeName(name) {
		return id, name, refusal.New(kbs.CodeBadRequest, "volume name: expected up to 63 letters, digits, '.', '_', '-', the first a letter or digit")
	}
	return id, name, mayDestroy(r.Context(), s.Store, t, id)
}
