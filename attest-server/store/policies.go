package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TenantPolicy is the policy of a tenant in RFC 8785 form; nil if it has none,
// or if there is no such tenant.
func (s tenants) TenantPolicy(ctx context.Context, tenant string) ([]byte, error) {
	var p []byte
	err := s.db.QueryRowContext(ctx, "SELECT policy FROM tenants WHERE name = ?", tenant).Scan(&p)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("reading the policy of tenant %s: %w", tenant, err)
	}
	return p, nil
}

// SetTenantPolicy gives a tenant a policy, which the caller has checked; nil
// takes it away. ErrNotFound: there is no such tenant.
func (s tenants) SetTenantPolicy(ctx context.Context, tenant string, p *kbs.Policy, actor string) error {
	var canonical []byte
	action, detail := "tenant.policy.remove", ""
	if p != nil {
		var err error
		if canonical, err = kbs.Canonical(p); err != nil {
			return fmt.Errorf("encoding policy: %w", err)
		}
		action, detail = "tenant.policy.set", "policy "+kbs.Sum384(canonical).String()
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := changed(tx.Exec("UPDATE tenants SET policy = ? WHERE name = ?", canonical, tenant)); err != nil {
			return fmt.Errorf("tenant %s: %w", tenant, err)
		}
		return s.log.append(tx, actor, action, tenant, detail)
	})
}
