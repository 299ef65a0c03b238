package attestserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// policies is what is asked of workloads beside their own rules, and what that
// amounts to for those that attested lately.
type policies struct {
	compiler *policy.Compiler
	server   atomic.Pointer[kbs.Policy]

	mu     sync.Mutex
	merged map[mergedKey]*policy.Effective
}

// mergedKey is everything that a merged policy is made of.
type mergedKey struct {
	registration, tenant kbs.Digest
	server               *kbs.Policy
}

// maxMerged bounds merged policies in memory, some KiB each. Over it all are
// dropped: making one takes no more than a millisecond an expression.
const maxMerged = 1024

func newPolicies() (*policies, error) {
	c, err := policy.NewCompiler()
	if err != nil {
		return nil, err
	}
	return &policies{compiler: c, merged: map[mergedKey]*policy.Effective{}}, nil
}

// SetPolicy puts p in place of the policy for all workloads; nil is none. What
// attests from now on must satisfy it. A policy that is refused changes
// nothing.
func (s *Server) SetPolicy(p *kbs.Policy) error {
	if p != nil {
		if err := s.policies.compiler.CheckDefaults(*p, s.Clock()); err != nil {
			return fmt.Errorf("the server's policy: %w", err)
		}
	}
	s.policies.server.Store(p)
	return nil
}

// effective is all that is asked of w. A *policy.LevelError says that it can
// never attest as policies are now.
func (s *Server) effective(w store.Workload) (*policy.Effective, error) {
	tenant := w.TenantPolicy
	key := mergedKey{registration: w.Digest, server: s.policies.server.Load()}
	if tenant != nil {
		key.tenant = kbs.Sum384(tenant)
	}
	s.policies.mu.Lock()
	e := s.policies.merged[key]
	s.policies.mu.Unlock()
	if e != nil {
		return e, nil
	}
	e, err := s.merge(key.server, tenant, w.Registration.ReferenceValues)
	if err != nil {
		return nil, err
	}
	s.policies.mu.Lock()
	defer s.policies.mu.Unlock()
	if len(s.policies.merged) >= maxMerged {
		clear(s.policies.merged)
	}
	s.policies.merged[key] = e
	return e, nil
}

func (s *Server) merge(server *kbs.Policy, tenant []byte, ref kbs.ReferenceValues) (*policy.Effective, error) {
	var parts []policy.Part
	if server != nil {
		parts = append(parts, policy.Part{Level: kbs.LevelServer, Policy: *server})
	}
	if tenant != nil {
		p, err := policy.Parse(tenant)
		if err != nil {
			return nil, &policy.LevelError{Level: kbs.LevelTenant, Err: err}
		}
		parts = append(parts, policy.Part{Level: kbs.LevelTenant, Policy: p})
	}
	return s.policies.compiler.Effective(ref, parts...)
}

// checkPolicies refuses a registration whose expressions are none, or that
// could never attest under the policies of now.
func (s *Server) checkPolicies(ctx context.Context, reg kbs.Registration) error {
	tenant, err := s.Store.TenantPolicy(ctx, kbs.TenantOf(reg.WorkloadID))
	if err != nil {
		return err
	}
	if _, err := s.merge(s.policies.server.Load(), tenant, reg.ReferenceValues); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return nil
}

// addConflict is the failed rule of a workload whose policies exclude one
// another.
func (c *checks) addConflict(err *policy.LevelError) {
	c.add("policy", false, "policies that can be satisfied together", err.Error(),
		"have the policy changed, or register the workload with rules that fit it")
	(*c)[len(*c)-1].Level = err.Level
}

// ofTenant is the tenant of the path if it is the token's.
func ofTenant(r *http.Request, t store.Token) (string, error) {
	name := r.PathValue("tenant")
	if !kbs.ValidTenant(name) || t.Tenant != "" && t.Tenant != name {
		return "", refusal.New(kbs.CodeNotFound, "tenant %q: %v", name, store.ErrNotFound)
	}
	return name, nil
}

func (s *Server) getTenantPolicy(w http.ResponseWriter, r *http.Request, t store.Token) error {
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

// putTenantPolicy takes what can be satisfied together with the server's
// policy. It may say less than that, which then holds all the same.
func (s *Server) putTenantPolicy(w http.ResponseWriter, r *http.Request, t store.Token) error {
	name, err := ofTenant(r, t)
	if err != nil {
		return err
	}
	var p kbs.Policy
	if err := answer.ReadJSON(w, r, kbs.MaxPolicyBody, &p); err != nil {
		return err
	}
	if err := s.CheckTenantPolicy(p); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return s.setTenantPolicy(w, r, t, name, &p)
}

// CheckTenantPolicy refuses what SetPolicy would, and what contradicts the
// server's policy.
func (s *Server) CheckTenantPolicy(p kbs.Policy) error {
	if err := s.policies.compiler.CheckDefaults(p, s.Clock()); err != nil {
		return fmt.Errorf("the tenant's policy: %w", err)
	}
	server := s.policies.server.Load()
	if server == nil {
		return nil
	}
	return policy.Agree(policy.Part{Level: kbs.LevelServer, Policy: *server}, policy.Part{Level: kbs.LevelTenant, Policy: p})
}

func (s *Server) deleteTenantPolicy(w http.ResponseWriter, r *http.Request, t store.Token) error {
	name, err := ofTenant(r, t)
	if err != nil {
		return err
	}
	return s.setTenantPolicy(w, r, t, name, nil)
}

func (s *Server) setTenantPolicy(w http.ResponseWriter, r *http.Request, t store.Token, name string, p *kbs.Policy) error {
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

// Unsatisfiable calls each with every workload that policies, as they are now,
// leave nothing to match.
func (s *Server) Unsatisfiable(ctx context.Context, each func(workload string, err error)) error {
	for after := ""; ; {
		page, err := s.Store.Workloads(ctx, after, maxPage)
		if err != nil {
			return err
		}
		for _, x := range page.Workloads {
			w, err := s.Store.Workload(ctx, x.WorkloadID)
			if errors.Is(err, store.ErrNotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			_, err = s.effective(w)
			var conflict *policy.LevelError
			switch {
			case errors.As(err, &conflict):
				each(x.WorkloadID, err)
			case err != nil:
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}
