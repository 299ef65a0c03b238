package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// WorkloadStore is what workloads need of a store. Errors are those of package
// store: ErrNotFound, *ConflictError, *DuplicateIdentityError, *QuotaError.
type WorkloadStore interface {
	Register(ctx context.Context, reg kbs.Registration, boot *kbs.Boot, diskKey secret.Bytes, actor string) (created bool, err error)
	Workload(ctx context.Context, id string) (store.Workload, error)
	// Workloads is one page of a tenant's workloads; of all if it is empty.
	Workloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error)
	Revoke(ctx context.Context, id, actor string) (store.Workload, error)
	Remove(ctx context.Context, id, actor string) error
}

// Workloads registers, shows, revokes and removes workloads. All fields are
// needed.
type Workloads struct {
	Store    WorkloadStore
	Policies *release.Policies
	Dialects []session.Dialect  // that guests may speak
	Verifies func(kbs.TEE) bool // says whose Evidence can be verified
	Clock    func() time.Time
	Log      *slog.Logger
}

func (s *Workloads) put(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var req kbs.RegisterRequest
	if err := answer.ReadJSON(w, r, kbs.MaxRegisterBody, &req); err != nil {
		return err
	}
	diskKey := secret.New(req.DiskKey)
	defer diskKey.Wipe()
	if id := r.PathValue("id"); req.Registration.WorkloadID != id {
		return refusal.New(kbs.CodeBadRequest, "registration of workload %q sent to the path of %q", req.Registration.WorkloadID, id)
	}
	created, err := s.Register(r.Context(), req.Registration, req.Boot, diskKey, t)
	if err != nil {
		return err
	}
	have, err := s.Store.Workload(r.Context(), req.Registration.WorkloadID)
	if err != nil {
		return workloadProblem(err)
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return answer.WriteJSON(w, status, kbs.RegisterAnswer{Created: created, Status: have.WorkloadStatus})
}

// Register registers a workload for t's bearer if it could be released, and not
// too easily. boot may be nil.
func (s *Workloads) Register(ctx context.Context, reg kbs.Registration, boot *kbs.Boot, diskKey secret.Bytes, t store.Token) (created bool, err error) {
	if err := mayRegister(t, reg.WorkloadID); err != nil {
		return false, err
	}
	if err := s.check(reg, diskKey); err != nil {
		return false, refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err := checkBoot(reg, boot); err != nil {
		return false, refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err := s.Policies.CheckRegistration(ctx, reg); err != nil {
		return false, err
	}
	if created, err = s.Store.Register(ctx, reg, boot, diskKey, actor(t)); err != nil {
		return false, registerProblem(err, t)
	}
	if created {
		s.Log.Info("workload registered", "workload", reg.WorkloadID, "by", actor(t))
	}
	return created, nil
}

// registerProblem names nobody else's workload to a tenant.
func registerProblem(err error, t store.Token) error {
	var quota *store.QuotaError
	if errors.As(err, &quota) {
		return &refusal.Error{Code: kbs.CodeQuota, Detail: quota.Error() + ": " + quota.Hint()}
	}
	var conflict *store.ConflictError
	var dup *store.DuplicateIdentityError
	switch {
	case errors.As(err, &conflict):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: conflict.Error() + ": " + conflict.Hint()}
	case errors.As(err, &dup) && !kbs.Owns(t.Tenant, dup.WorkloadID):
		return &refusal.Error{Code: kbs.CodeDuplicateDigest, Detail: "the launch digest belongs to another workload, whose other reference values do not rule this one's guests out: " + dup.Hint()}
	case errors.As(err, &dup):
		return &refusal.Error{Code: kbs.CodeDuplicateDigest, Detail: dup.Error() + ": " + dup.Hint()}
	}
	return workloadProblem(err)
}

func workloadProblem(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Code: kbs.CodeNotFound, Detail: err.Error()}
	}
	if errors.Is(err, store.ErrNotOwner) {
		return &refusal.Error{Code: kbs.CodeForbidden, Detail: err.Error() + ": only a token of that principal or an admin may do this"}
	}
	return err
}

func (s *Workloads) get(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	have, err := s.Store.Workload(r.Context(), r.PathValue("id"))
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, have.WorkloadStatus)
}

func (s *Workloads) list(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	list, err := s.Store.Workloads(r.Context(), t.Tenant, r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}

// revoke is for good, so it needs the workload's owner or an admin, as removing
// does.
func (s *Workloads) revoke(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := mayDestroy(r.Context(), s.Store, t, r.PathValue("id")); err != nil {
		return err
	}
	have, err := s.Store.Revoke(r.Context(), r.PathValue("id"), actor(t))
	if err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("workload revoked", "workload", r.PathValue("id"), "by", actor(t))
	return answer.WriteJSON(w, http.StatusOK, have.WorkloadStatus)
}

// remove lets a publisher remove what he registered himself, e.g. when a build
// fails after registering; an admin may remove anything.
func (s *Workloads) remove(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := mayDestroy(r.Context(), s.Store, t, r.PathValue("id")); err != nil {
		return err
	}
	if err := s.Store.Remove(r.Context(), r.PathValue("id"), actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("workload removed", "workload", r.PathValue("id"), "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
