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
	// Replace registers the next version of what is there. ErrChanged: that is not
	// what r expects.
	Replace(ctx context.Context, reg kbs.Registration, boot *kbs.Boot, diskKey secret.Bytes, r kbs.Replace, actor string) (created bool, err error)
	// Workload and those below take ID, or ID@N for one version.
	Workload(ctx context.Context, id string) (store.Workload, error)
	Versions(ctx context.Context, id string) ([]kbs.Version, error)
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
	created, err := s.register(r.Context(), req, diskKey, t)
	if err != nil {
		return err
	}
	have, err := s.status(r.Context(), req.Registration.WorkloadID)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return answer.WriteJSON(w, status, kbs.RegisterAnswer{Created: created, Status: have})
}

// Register registers a workload for t's bearer if it could be released, and not
// too easily.
func (s *Workloads) Register(ctx context.Context, reg kbs.Registration, diskKey secret.Bytes, t store.Token) (created bool, err error) {
	return s.register(ctx, kbs.RegisterRequest{Registration: reg}, diskKey, t)
}

func (s *Workloads) register(ctx context.Context, req kbs.RegisterRequest, diskKey secret.Bytes, t store.Token) (created bool, err error) {
	reg, boot := req.Registration, req.Boot
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
	if req.Replace != nil {
		created, err = s.replace(ctx, req, diskKey, t)
	} else {
		created, err = s.Store.Register(ctx, reg, boot, diskKey, actor(t))
	}
	if err != nil {
		return false, registerProblem(err, t)
	}
	if created {
		s.Log.Info("workload registered", "workload", reg.WorkloadID, "by", actor(t))
	}
	return created, nil
}

// replace ends a registration, and so needs its owner or an admin, as revoking
// does.
func (s *Workloads) replace(ctx context.Context, req kbs.RegisterRequest, diskKey secret.Bytes, t store.Token) (created bool, err error) {
	reg, r := req.Registration, *req.Replace
	if reg.Type == kbs.TypeLegacy {
		return false, refusal.New(kbs.CodeBadRequest, "replace: guests of the legacy dialect cannot be told from those of the version before")
	}
	if r.Expect.IsZero() || r.NotAfter.IsZero() || r.NotAfter.Year() > 9999 {
		return false, refusal.New(kbs.CodeBadRequest, "replace without expect or not_after: say which version is replaced, and when it ends")
	}
	if err := mayDestroy(ctx, s.Store, t, reg.WorkloadID); err != nil {
		return false, err
	}
	return s.Store.Replace(ctx, reg, req.Boot, diskKey, r, actor(t))
}

// registerProblem names nobody else's workload to a tenant.
func registerProblem(err error, t store.Token) error {
	var quota *store.QuotaError
	if errors.As(err, &quota) {
		return &refusal.Error{Code: kbs.CodeQuota, Detail: quota.Error() + ": " + quota.Hint()}
	}
	var conflict *store.ConflictError
	var dup *store.DuplicateIdentityError
	var full *store.VersionsError
	switch {
	case errors.Is(err, store.ErrChanged):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: "the newest version is another than was to be replaced: somebody else replaced or changed it meanwhile; look, and build again"}
	case errors.As(err, &full):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: full.Error() + ": " + full.Hint()}
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
	if errors.Is(err, store.ErrHasVolumes) {
		return &refusal.Error{Code: kbs.CodeConflict, Detail: err.Error() + ", whose data could never be opened again: `ccrun volume forget ID NAME` for each of them first"}
	}
	if errors.Is(err, store.ErrNotOwner) {
		return &refusal.Error{Code: kbs.CodeForbidden, Detail: err.Error() + ": only a token of that principal or an admin may do this"}
	}
	return err
}

func (s *Workloads) get(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	have, err := s.status(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, have)
}

// status is a version's, with all versions of the workload if there are several.
func (s *Workloads) status(ctx context.Context, name string) (kbs.WorkloadStatus, error) {
	have, err := s.Store.Workload(ctx, name)
	if err != nil {
		return kbs.WorkloadStatus{}, workloadProblem(err)
	}
	versions, err := s.Store.Versions(ctx, name)
	if err != nil {
		return kbs.WorkloadStatus{}, err
	}
	if len(versions) > 1 {
		have.Versions = versions
	}
	return have.WorkloadStatus, nil
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
	if err := s.mayEnd(r.Context(), t, r.PathValue("id")); err != nil {
		return err
	}
	have, err := s.Store.Revoke(r.Context(), r.PathValue("id"), actor(t))
	if err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("workload revoked", "workload", r.PathValue("id"), "by", actor(t))
	return answer.WriteJSON(w, http.StatusOK, have.WorkloadStatus)
}

// mayEnd is mayDestroy for every version that name means.
func (s *Workloads) mayEnd(ctx context.Context, t store.Token, name string) error {
	names := []string{name}
	if kbs.WorkloadOf(name) == name {
		versions, err := s.Store.Versions(ctx, name)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if v.Name != name {
				names = append(names, v.Name)
			}
		}
	}
	for _, n := range names {
		if err := mayDestroy(ctx, s.Store, t, n); err != nil {
			return err
		}
	}
	return nil
}

// remove lets a publisher remove what he registered himself, e.g. when a build
// fails after registering; an admin may remove anything.
func (s *Workloads) remove(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := s.mayEnd(r.Context(), t, r.PathValue("id")); err != nil {
		return err
	}
	if err := s.Store.Remove(r.Context(), r.PathValue("id"), actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("workload removed", "workload", r.PathValue("id"), "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
