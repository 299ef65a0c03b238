package kbs

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Policy is rules apart from what identifies one workload: those of a server
// or a tenant, which hold for every workload beside its own, or a file for
// `ccrun build --policy` and `ccrun verify --policy`. A policy that asks for
// nothing is refused. A section that is there has the strict default wherever
// it says nothing: "snp": {} forbids debugging, migration, CXL memory and
// provisional firmware to all.
type Policy struct {
	SNP  *SNPRules    `json:"snp,omitempty"`
	TDX  *TDXRules    `json:"tdx,omitempty"`
	VTPM *VTPMRules   `json:"vtpm,omitempty"` // a workload's alone
	CEL  []Expression `json:"cel,omitempty"`
	// NotAfter is when nothing is accepted any more until the policy has been
	// renewed. nil: never.
	NotAfter *time.Time `json:"not_after,omitempty"`
}

// IsZero says whether p asks for nothing.
func (p Policy) IsZero() bool {
	return p.SNP == nil && p.TDX == nil && p.VTPM == nil && len(p.CEL) == 0 && p.NotAfter == nil
}

// Expression is a rule over claims in the Common Expression Language, for
// what typed rules cannot say. It appears in results as rule "cel:NAME".
type Expression struct {
	Name       string `json:"name"`           // up to 64 letters, digits, '-' and '_'
	Expression string `json:"expression"`     // true for what is accepted
	Hint       string `json:"hint,omitempty"` // the next step for whoever is refused
}

// Levels at which rules are set: see Rule.
const (
	LevelServer   = "server"
	LevelTenant   = "tenant"
	LevelWorkload = "workload"
)

// MaxPolicyBody bounds a policy, in bytes.
const MaxPolicyBody = 256 << 10

// TenantPolicy is the policy of a tenant: GET /v1/tenants/{tenant}/policy.
func (c *AdminClient) TenantPolicy(ctx context.Context, tenant string) (*Policy, error) {
	var p Policy
	if err := c.do(ctx, http.MethodGet, tenantPolicyPath(tenant), nil, &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// SetTenantPolicy gives a tenant a policy, in place of the one it may have.
func (c *AdminClient) SetTenantPolicy(ctx context.Context, tenant string, p Policy) error {
	return c.do(ctx, http.MethodPut, tenantPolicyPath(tenant), p, nil)
}

// RemoveTenantPolicy leaves a tenant without a policy.
func (c *AdminClient) RemoveTenantPolicy(ctx context.Context, tenant string) error {
	return c.do(ctx, http.MethodDelete, tenantPolicyPath(tenant), nil, nil)
}

func tenantPolicyPath(tenant string) string {
	return "/v1/tenants/" + url.PathEscape(tenant) + "/policy"
}
