package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TenantPolicyStore is what tenants' policies need of a store. The error for a
// tenant that does not exist is store.ErrNotFound.
type TenantPolicyStore interface {
	// TenantPolicy is a tenant's policy in RFC 8785 form, nil if it has none.
	TenantPolicy(ctx context.Context, tenant string) ([]byte, error)
	SetTenantPolicy(ctx context.Context, tenant string, p *kbs.Policy, actor string) error
}

// TenantPolicies shows and sets what tenants ask of all their workloads.
type TenantPolicies struct {
	Store    TenantPolicyStore
	Policies *release.Policies
	Log      *slog.Logger
}

// ofTenant is the tenant of the path if it is the token's.
func ofTenant(r *http.Request, t store.Token) (string, error) {
	name := r.PathValue("tenant")
	if !kbs.ValidTenant(name) || t.Tenant != "" && t.Tenant != name {
		return "", refusal.New(kbs.CodeNotFound, "tenant %q: %v", name, store.ErrNotFound)
	}
	return name, nil
}

func (s *TenantPolicies) get(w http.ResponseWriter, r *http.Request, t store.Token) error {
	name, err := ofTenant(r, t)
	if err != nil {
		return err
	}
	b, err := s.Store.TenantPolicy(r.Context(), name)
	if err != nil {
		return err
	}
	if b == nil {
		return refusal.New(kbs.CodeNotFound, "tenant %s has no policy", name)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, p)
}

// put takes what can be satisfied together with the server's policy. It may say
// less than that, which then holds all the same.
func (s *TenantPolicies) put(w http.ResponseWriter, r *http.Request, t store.Token) error {
	name, err := ofTenant(r, t)
	if err != nil {
		return err
	}
	var p kbs.Policy
	if err := answer.ReadJSON(w, r, kbs.MaxPolicyBody, &p); err != nil {
		return err
	}
	if err := s.Policies.CheckTenant(p); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return s.set(w, r, t, name, &p)
}

func (s *TenantPolicies) remove(w http.ResponseWriter, r *http.Request, t store.Token) error {
	name, err := ofTenant(r, t)
	if err != nil {
		return err
	}
	return s.set(w, r, t, name, nil)
}

func (s *TenantPolicies) set(w http.ResponseWriter, r *http.Request, t store.Token, name string, p *kbs.Policy) error {
	err := s.Store.SetTenantPolicy(r.Context(), name, p, actor(t))
	if errors.Is(err, store.ErrNotFound) {
		return refusal.New(kbs.CodeNotFound, "%v", err)
	}
	if err != nil {
		return err
	}
	s.Log.Info("tenant's policy changed", "tenant", name, "set", p != nil, "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
