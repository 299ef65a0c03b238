package release

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// Policies is what is asked of workloads beside their own rules, and what that
// amounts to for those that attested lately.
type Policies struct {
	store    PolicyStore
	clock    func() time.Time
	compiler *policy.Compiler
	server   atomic.Pointer[kbs.Policy]
	// advisories is never nil once SetAdvisories was called; without, nothing
	// is accepted.
	advisories atomic.Pointer[advisory.Table]

	mu     sync.Mutex
	merged map[mergedFrom]*policy.Effective
}

// mergedFrom is everything that a merged policy is made of.
type mergedFrom struct {
	registration, tenant kbs.Digest
	server               *kbs.Policy
}

// maxMerged bounds merged policies in memory, some KiB each. Over it all are
// dropped: making one takes no more than a millisecond an expression.
const maxMerged = 1024

// PolicyStore is what policies need of a store.
type PolicyStore interface {
	Workload(ctx context.Context, id string) (store.Workload, error)
	// Workloads is one page of a tenant's workloads; of all if it is empty.
	Workloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error)
	// TenantPolicy is a tenant's policy in RFC 8785 form, nil if it has none.
	TenantPolicy(ctx context.Context, tenant string) ([]byte, error)
}

// NewPolicies makes Policies without one of the server's: see Set.
func NewPolicies(s PolicyStore, clock func() time.Time) (*Policies, error) {
	c, err := policy.NewCompiler()
	if err != nil {
		return nil, err
	}
	return &Policies{store: s, clock: clock, compiler: c, merged: map[mergedFrom]*policy.Effective{}}, nil
}

// Set puts p in place of the policy for all workloads; nil is none. What
// attests from now on must satisfy it. A policy that is refused changes
// nothing.
func (ps *Policies) Set(p *kbs.Policy) error {
	use, err := ps.Prepare(p)
	if err == nil {
		use()
	}
	return err
}

// SetAdvisories puts t in place of what is known to be broken in firmware.
func (ps *Policies) SetAdvisories(t *advisory.Table) { ps.advisories.Store(t) }

// Advisories is the table in use.
func (ps *Policies) Advisories() *advisory.Table { return ps.advisories.Load() }

// Prepare is Set in two steps, of which the second cannot fail.
func (ps *Policies) Prepare(p *kbs.Policy) (use func(), err error) {
	if p != nil {
		if err := ps.compiler.CheckDefaults(*p, ps.clock()); err != nil {
			return nil, fmt.Errorf("the server's policy: %w", err)
		}
	}
	return func() { ps.server.Store(p) }, nil
}

// Effective is all that is asked of w. A *policy.LevelError says that it can
// never attest as policies are now.
func (ps *Policies) Effective(w store.Workload) (*policy.Effective, error) {
	tenant := w.TenantPolicy
	from := mergedFrom{registration: w.Digest, server: ps.server.Load()}
	if tenant != nil {
		from.tenant = kbs.Sum384(tenant)
	}
	ps.mu.Lock()
	e := ps.merged[from]
	ps.mu.Unlock()
	if e != nil {
		return e, nil
	}
	e, err := ps.merge(from.server, tenant, w.Registration.ReferenceValues)
	if err != nil {
		return nil, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.merged) >= maxMerged {
		clear(ps.merged)
	}
	ps.merged[from] = e
	return e, nil
}

func (ps *Policies) merge(server *kbs.Policy, tenant []byte, ref kbs.ReferenceValues) (*policy.Effective, error) {
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
	return ps.compiler.Effective(ref, parts...)
}

// CheckRegistration refuses a registration with an expression that does not
// compile, and one that no guest could satisfy while policies are as they are.
func (ps *Policies) CheckRegistration(ctx context.Context, reg kbs.Registration) error {
	tenant, err := ps.store.TenantPolicy(ctx, kbs.TenantOf(reg.WorkloadID))
	if err != nil {
		return err
	}
	if _, err := ps.merge(ps.server.Load(), tenant, reg.ReferenceValues); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return nil
}

// CheckTenant refuses what Set would, and what contradicts the server's policy.
func (ps *Policies) CheckTenant(p kbs.Policy) error {
	if err := ps.compiler.CheckDefaults(p, ps.clock()); err != nil {
		return fmt.Errorf("the tenant's policy: %w", err)
	}
	server := ps.server.Load()
	if server == nil {
		return nil
	}
	return policy.Agree(policy.Part{Level: kbs.LevelServer, Policy: *server}, policy.Part{Level: kbs.LevelTenant, Policy: p})
}

// Unsatisfiable calls each with every workload that policies, as they are now,
// leave nothing to match.
func (ps *Policies) Unsatisfiable(ctx context.Context, each func(workload string, err error)) error {
	for after := ""; ; {
		page, err := ps.store.Workloads(ctx, "", after, 100)
		if err != nil {
			return err
		}
		for _, x := range page.Workloads {
			w, err := ps.store.Workload(ctx, x.WorkloadID)
			if errors.Is(err, store.ErrNotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			_, err = ps.Effective(w)
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
