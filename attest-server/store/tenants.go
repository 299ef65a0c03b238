package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Tenant is one of several owners who share a server and must not learn of
// one another. See kbs.Owns for what is whose.
type Tenant struct {
	Name         string    `json:"name"`
	MaxWorkloads int64     `json:"max_workloads"`
	MaxResources int64     `json:"max_resources"`
	Workloads    int64     `json:"workloads"`
	Resources    int64     `json:"resources"`
	CreatedAt    time.Time `json:"created_at"`
}

// tenants are the owners who share a server, their quotas and policies.
type tenants struct{ *core }

// SetTenant makes a tenant or changes its quotas. A name that something of
// the operator's already begins with is refused: the tenant would own it.
func (s tenants) SetTenant(ctx context.Context, name string, maxWorkloads, maxResources int64, actor string) error {
	switch {
	case !kbs.ValidTenant(name):
		return fmt.Errorf("tenant %q: expected up to 32 lower-case letters, digits and '-'", name)
	case maxWorkloads < 0 || maxResources < 0:
		return fmt.Errorf("tenant %s: quotas %d and %d, expected at least 0", name, maxWorkloads, maxResources)
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		exists, err := tenantExists(tx, name)
		if err != nil {
			return err
		}
		workloads, resources, err := countOwned(tx, name)
		if err != nil {
			return err
		}
		if !exists && workloads+resources > 0 {
			return fmt.Errorf("tenant %s: %d workloads and %d resources have names that begin with it: choose another name, or remove them", name, workloads, resources)
		}
		_, err = tx.Exec(`INSERT INTO tenants(name, max_workloads, max_resources, created_at, audit_after)
			VALUES(?,?,?,?,(SELECT coalesce(max(seq), 0) FROM audit))
			ON CONFLICT(name) DO UPDATE SET max_workloads = excluded.max_workloads, max_resources = excluded.max_resources`,
			name, maxWorkloads, maxResources, unixMilli(s.clock()))
		if err != nil {
			return err
		}
		return s.log.append(tx, actor, "tenant.set", name, fmt.Sprintf("workloads %d, resources %d", maxWorkloads, maxResources))
	})
}

// RemoveTenant removes a tenant that has nothing left, with what it approved and
// the records of its sessions, and revokes its tokens.
func (s tenants) RemoveTenant(ctx context.Context, name, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		workloads, resources, err := countOwned(tx, name)
		if err != nil {
			return err
		}
		if workloads+resources > 0 {
			return fmt.Errorf("tenant %s still has %d workloads and %d resources", name, workloads, resources)
		}
		if err := changed(tx.Exec("DELETE FROM tenants WHERE name = ?", name)); err != nil {
			return fmt.Errorf("tenant %s: %w", name, err)
		}
		// A later tenant of that name inherits nothing.
		if _, err := tx.Exec("DELETE FROM approvals WHERE tenant = ?", name); err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM sessions WHERE "+owned("workload", "?1"), name); err != nil {
			return err
		}
		if _, err := tx.Exec("DELETE FROM evidence WHERE "+owned("workload", "?1"), name); err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE tokens SET revoked_at = ? WHERE tenant = ? AND revoked_at IS NULL", unixMilli(s.clock()), name); err != nil {
			return err
		}
		return s.log.append(tx, actor, "tenant.remove", name, "")
	})
}

// Tenants is every tenant, by name.
func (s tenants) Tenants(ctx context.Context) ([]Tenant, error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("listing tenants: %w", err)
	}
	defer tx.Rollback()
	all, err := list(ctx, tx, func(r row) (t Tenant, err error) {
		var created int64
		err = r.Scan(&t.Name, &t.MaxWorkloads, &t.MaxResources, &created)
		t.CreatedAt = fromMilli(created)
		return t, err
	}, "SELECT name, max_workloads, max_resources, created_at FROM tenants ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("listing tenants: %w", err)
	}
	for i, t := range all {
		if all[i].Workloads, all[i].Resources, err = countOwned(tx, t.Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// owned is the condition that column begins with a tenant's name, as kbs.Owns
// has it. In the order of bytes '.' is followed by '/'.
func owned(column, tenant string) string {
	return fmt.Sprintf("(%[1]s = %[2]s OR (%[1]s >= %[2]s || '.' AND %[1]s < %[2]s || '/'))", column, tenant)
}

func countOwned(tx *sql.Tx, tenant string) (workloads, resources int64, err error) {
	if err := tx.QueryRow("SELECT count(*) FROM workloads WHERE id NOT LIKE '%@%' AND "+owned("id", "?1"), tenant).Scan(&workloads); err != nil {
		return 0, 0, err
	}
	err = tx.QueryRow("SELECT count(*) FROM (SELECT DISTINCT repo, type, tag FROM resources WHERE "+owned("repo", "?1")+") AS names", tenant).Scan(&resources)
	return workloads, resources, err
}

// checkQuota refuses one more workload or resource of the tenant that name
// belongs to. It runs in the transaction that adds it.
func checkQuota(tx *sql.Tx, name, what string) error {
	t := kbs.TenantOf(name)
	q := &QuotaError{Tenant: t, What: what}
	var maxWorkloads, maxResources int64
	err := tx.QueryRow("SELECT max_workloads, max_resources FROM tenants WHERE name = ?", t).Scan(&maxWorkloads, &maxResources)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	workloads, resources, err := countOwned(tx, t)
	if err != nil {
		return err
	}
	have := workloads
	q.Max = maxWorkloads
	if what == "resources" {
		have, q.Max = resources, maxResources
	}
	if have >= q.Max {
		return q
	}
	return nil
}

// HasTenant says whether there is a tenant of that name.
func (s tenants) HasTenant(ctx context.Context, name string) (exists bool, err error) {
	return exists, s.db.QueryRowContext(ctx, "SELECT EXISTS(SELECT 1 FROM tenants WHERE name = ?)", name).Scan(&exists)
}

// TenantMade tells a tenant from all others that had its name before, or will
// have it: never zero. ErrNotFound: there is none.
func (s tenants) TenantMade(ctx context.Context, name string) (made int64, err error) {
	// What removed the one before is an audit entry.
	err = s.db.QueryRowContext(ctx, "SELECT audit_after + 1 FROM tenants WHERE name = ?", name).Scan(&made)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("tenant %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("reading tenant %s: %w", name, err)
	}
	return made, nil
}

func tenantExists(tx *sql.Tx, name string) (exists bool, err error) {
	return exists, tx.QueryRow("SELECT EXISTS(SELECT 1 FROM tenants WHERE name = ?)", name).Scan(&exists)
}

func needTenant(tx *sql.Tx, name string) error {
	exists, err := tenantExists(tx, name)
	if err == nil && !exists {
		err = fmt.Errorf("tenant %s: %w", name, ErrNotFound)
	}
	return err
}

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
