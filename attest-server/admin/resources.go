package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

const maxPolicyEntries = 64

// ResourceStore is what resources need of a store. Errors are those of package
// store: ErrNotFound, ErrNotOwner, *QuotaError.
type ResourceStore interface {
	PutResource(ctx context.Context, id kbs.ResourceID, p kbs.ResourcePolicy, value secret.Bytes, by store.Caller) (kbs.ResourceAnswer, error)
	// PutResourceValue leaves a resource's policy as it is; a new one gets first.
	PutResourceValue(ctx context.Context, id kbs.ResourceID, first kbs.ResourcePolicy, value secret.Bytes, by store.Caller) (kbs.ResourceAnswer, error)
	Resource(ctx context.Context, id kbs.ResourceID) (kbs.ResourceMeta, error)
	Resources(ctx context.Context, tenant, after string, limit int) (kbs.ResourceList, error)
	RemoveResource(ctx context.Context, id kbs.ResourceID, by store.Caller) error
	// WorkloadSecrets is what a workload may get.
	WorkloadSecrets(ctx context.Context, workload string) ([]kbs.SecretStatus, error)
}

// Resources holds secrets beside workloads' DiskKeys.
type Resources struct {
	Store ResourceStore
	Log   *slog.Logger
}

// ResourceID is the resource of the path.
func ResourceID(r *http.Request) (kbs.ResourceID, error) {
	id, err := kbs.ParseResourceID(r.PathValue("repo") + "/" + r.PathValue("type") + "/" + r.PathValue("tag"))
	if err != nil {
		return id, refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return id, nil
}

// ownResource is the resource of the path if it is the token's.
func ownResource(r *http.Request, t store.Token) (kbs.ResourceID, error) {
	id, err := ResourceID(r)
	if err != nil {
		return id, err
	}
	return id, own(t, "resource", id.String())
}

func (s *Resources) put(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := WritableResource(r, t)
	if err != nil {
		return err
	}
	var req kbs.ResourceRequest
	if err := answer.ReadJSON(w, r, kbs.MaxResourceBody, &req); err != nil {
		return err
	}
	value := secret.New(req.Value)
	defer value.Wipe()
	if err := checkResource(req.Policy, value); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	a, err := s.Store.PutResource(r.Context(), id, req.Policy, value, caller(t))
	if err != nil {
		return registerProblem(err, t)
	}
	status := http.StatusOK
	if a.Created {
		status = http.StatusCreated
	}
	s.logSet(id, a, t)
	return answer.WriteJSON(w, status, a)
}

// WritableResource is the resource of the path if t's bearer may set it.
func WritableResource(r *http.Request, t store.Token) (kbs.ResourceID, error) {
	id, err := ResourceID(r)
	if err == nil {
		err = notReserved(id)
	}
	if err == nil && !kbs.Owns(t.Tenant, id.String()) {
		err = refusal.New(kbs.CodeForbidden, "resource repositories of tenant %s are named %s or %s.NAME", t.Tenant, t.Tenant, t.Tenant)
	}
	return id, err
}

// SetValue leaves a resource's policy as it is. A new one of a tenant is for the
// tenant's workloads; there is no default for the operator, because it could
// only be everybody.
func (s *Resources) SetValue(ctx context.Context, id kbs.ResourceID, value secret.Bytes, t store.Token) error {
	if value.Len() == 0 {
		return refusal.New(kbs.CodeBadRequest, "the resource is empty")
	}
	var first kbs.ResourcePolicy
	if t.Tenant != "" {
		first.Tenants = []string{t.Tenant}
	}
	a, err := s.Store.PutResourceValue(ctx, id, first, value, caller(t))
	if errors.Is(err, store.ErrNotFound) {
		return refusal.New(kbs.CodeNotFound, "%s is new and nobody could get it: say who with `ccrun resource set %s --workload ID`, later values may come this way", id, id)
	}
	if err != nil {
		return registerProblem(err, t)
	}
	s.logSet(id, a, t)
	return nil
}

func (s *Resources) logSet(id kbs.ResourceID, a kbs.ResourceAnswer, t store.Token) {
	if a.Created {
		s.Log.Info("resource set", "resource", id.String(), "version", a.Version, "by", actor(t))
	}
}

// notReserved refuses names that stand for workloads' disk keys where CoCo's
// clients ask.
func notReserved(id kbs.ResourceID) error {
	if id.Repo == kbs.DiskKeyRepo && (id.Type == kbs.DiskKeyType || id.Type == kbs.StagedDiskKeyType) {
		return refusal.New(kbs.CodeBadRequest, "%s/%s/... stands for workloads' disk keys where CoCo clients ask: choose another name", id.Repo, id.Type)
	}
	return nil
}

// checkResource refuses what nobody could ever get.
func checkResource(p kbs.ResourcePolicy, value secret.Bytes) error {
	switch {
	case value.Len() == 0 || value.Len() > kbs.MaxResourceBytes:
		return fmt.Errorf("value of %d bytes, expected 1 to %d", value.Len(), kbs.MaxResourceBytes)
	case len(p.Workloads)+len(p.Tenants) == 0:
		return errors.New("policy names neither workloads nor tenants: nobody could ever get the resource")
	case len(p.Workloads) > maxPolicyEntries || len(p.Tenants) > maxPolicyEntries:
		return fmt.Errorf("policy of %d workloads and %d tenants, at most %d each", len(p.Workloads), len(p.Tenants), maxPolicyEntries)
	}
	for _, id := range p.Workloads {
		if !kbs.ValidWorkloadID(id) {
			return fmt.Errorf("policy: %q is no workload id", id)
		}
	}
	for _, t := range p.Tenants {
		if !kbs.ValidTenant(t) {
			return fmt.Errorf("policy: %q is no tenant's name", t)
		}
	}
	return checkApprovers(p.Approvals)
}

// get shows everything but the value.
func (s *Resources) get(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := ownResource(r, t)
	if err != nil {
		return err
	}
	m, err := s.Store.Resource(r.Context(), id)
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, m)
}

func (s *Resources) remove(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := s.Remove(r, t); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Remove removes every version of the resource of the path.
func (s *Resources) Remove(r *http.Request, t store.Token) error {
	id, err := ownResource(r, t)
	if err != nil {
		return err
	}
	if err := s.Store.RemoveResource(r.Context(), id, caller(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("resource removed", "resource", id.String(), "by", actor(t))
	return nil
}

func (s *Resources) list(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	list, err := s.Store.Resources(r.Context(), t.Tenant, r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}

// ofWorkload lists what a workload may get, also of other tenants: it is theirs to
// give.
func (s *Resources) ofWorkload(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	all, err := s.Store.WorkloadSecrets(r.Context(), r.PathValue("id"))
	if err != nil {
		return workloadProblem(err)
	}
	list := kbs.SecretList{Secrets: all}
	if len(all) > kbs.MaxSecretsListed {
		list = kbs.SecretList{Secrets: all[:kbs.MaxSecretsListed], More: true}
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}
