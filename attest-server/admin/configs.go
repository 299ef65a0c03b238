package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// ConfigStore is what workloads' configurations need of a store. Errors are those
// of package store: ErrNotFound, ErrNotOwner, ErrBadConfig.
type ConfigStore interface {
	ChangeConfig(ctx context.Context, id string, change kbs.ConfigChange, by store.Caller) (kbs.ConfigAnswer, error)
	Config(ctx context.Context, id string) (kbs.ConfigMeta, error)
	RemoveConfig(ctx context.Context, id string, by store.Caller) error
}

// Configs holds what workloads' processes get beside their images.
type Configs struct {
	Store ConfigStore
	Log   *slog.Logger
}

func (s *Configs) put(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var change kbs.ConfigChange
	if err := answer.ReadJSON(w, r, kbs.MaxConfigBody, &change); err != nil {
		return err
	}
	if err := change.Set.Validate(); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	id := r.PathValue("id")
	a, err := s.Store.ChangeConfig(r.Context(), id, change, caller(t))
	switch {
	case errors.Is(err, kbs.ErrTooLarge):
		return refusal.New(kbs.CodeTooLarge, "%v", err)
	case errors.Is(err, store.ErrBadConfig):
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	case err != nil:
		return workloadProblem(err)
	}
	status := http.StatusOK
	if a.Created {
		status = http.StatusCreated
		s.Log.Info("configuration set", "workload", id, "version", a.Version, "by", actor(t))
	}
	return answer.WriteJSON(w, status, a)
}

// get shows everything but values.
func (s *Configs) get(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	m, err := s.Store.Config(r.Context(), r.PathValue("id"))
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, m)
}

func (s *Configs) remove(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id := r.PathValue("id")
	if err := s.Store.RemoveConfig(r.Context(), id, caller(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("configuration removed", "workload", id, "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
