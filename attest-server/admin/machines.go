package admin

import (
	"context"
	"log/slog"
	"net/http"
	"slices"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// MachineStore is what is known of machines. The error for one that was never
// seen is store.ErrNotFound.
type MachineStore interface {
	Machines(ctx context.Context, after string, limit int) (kbs.MachineList, error)
	DeclareIncident(ctx context.Context, id, actor string) (kbs.Incident, error)
	LiftIncident(ctx context.Context, id, actor string) error
}

// Machines shows machines, and ends what one may have. They are the operator's:
// all tenants' guests run on them.
type Machines struct {
	Store MachineStore
	Log   *slog.Logger
}

func operators(t store.Token) error {
	if t.Tenant != "" {
		return refusal.New(kbs.CodeForbidden, "machines are the operator's, and token %s is a tenant's", t.ID)
	}
	return nil
}

func (s *Machines) list(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := operators(t); err != nil {
		return err
	}
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	page, err := s.Store.Machines(r.Context(), r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	if id := r.URL.Query().Get("advisory"); id != "" {
		page.Machines = slices.DeleteFunc(page.Machines, func(m kbs.Machine) bool { return !slices.Contains(m.Advisories, id) })
	}
	return answer.WriteJSON(w, http.StatusOK, page)
}

func (s *Machines) declare(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := operators(t); err != nil {
		return err
	}
	i, err := s.Store.DeclareIncident(r.Context(), r.PathValue("id"), actor(t))
	if err != nil {
		return workloadProblem(err)
	}
	s.Log.Warn("incident of a machine: nothing is released to it any more", "machine", i.Machine.ID, "granted", len(i.Granted), "by", actor(t))
	return answer.WriteJSON(w, http.StatusOK, i)
}

func (s *Machines) lift(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := operators(t); err != nil {
		return err
	}
	if err := s.Store.LiftIncident(r.Context(), r.PathValue("id"), actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Warn("incident lifted", "machine", r.PathValue("id"), "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
