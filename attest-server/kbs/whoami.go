package kbs

import (
	"context"
	"net/http"
	"time"
)

// Whoami is the answer to GET /v1/whoami: what the token or client certificate of
// the request stands for.
type Whoami struct {
	Role      string     `json:"role"`                // admin, publisher or auditor
	Tenant    string     `json:"tenant,omitempty"`    // the operator's without
	Principal string     `json:"principal,omitempty"` // whose it is, if it was made for somebody
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// Whoami is what the client's token stands for. Servers before it answer
// not_found.
func (c *AdminClient) Whoami(ctx context.Context) (*Whoami, error) {
	var w Whoami
	if err := c.do(ctx, http.MethodGet, "/v1/whoami", nil, &w); err != nil {
		return nil, err
	}
	return &w, nil
}
