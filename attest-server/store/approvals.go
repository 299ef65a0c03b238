package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// ErrNotApproved says that a tenant whose approval is needed has not given it.
var ErrNotApproved = errors.New("a tenant's approval is missing")

// maxApprovals is how many approvals a tenant may have.
const maxApprovals = 10000

// approvals are tenants' consents, without which some releases are refused.
type approvals struct{ *core }

// Approve keeps a tenant's approval. It does not check that anything has that
// name: the tenant could find out so what others have. Approving twice changes
// nothing.
func (s approvals) Approve(ctx context.Context, tenant string, a kbs.Approval, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := needTenant(tx, tenant); err != nil {
			return err
		}
		var n int64
		if err := tx.QueryRow("SELECT count(*) FROM approvals WHERE tenant = ?", tenant).Scan(&n); err != nil {
			return err
		}
		if n >= maxApprovals {
			return &QuotaError{Tenant: tenant, What: "approvals", Max: maxApprovals}
		}
		err := changed(tx.Exec(`INSERT INTO approvals(tenant, name, workload, registration, at, by) VALUES(?,?,?,?,?,?) ON CONFLICT DO NOTHING`,
			tenant, a.Name, a.WorkloadID, a.RegistrationDigest[:], unixMilli(s.clock()), actor))
		if errors.Is(err, ErrNotFound) {
			return nil // given before
		}
		if err != nil {
			return fmt.Errorf("storing approval: %w", err)
		}
		return s.log.append(tx, actor, "approval.give", tenant, approvalDetail(a))
	})
}

// Withdraw takes an approval back, from the next release on.
func (s approvals) Withdraw(ctx context.Context, tenant string, a kbs.Approval, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		err := changed(tx.Exec("DELETE FROM approvals WHERE tenant = ? AND name = ? AND workload = ? AND registration = ?",
			tenant, a.Name, a.WorkloadID, a.RegistrationDigest[:]))
		if err != nil {
			return fmt.Errorf("approval of %s for workload %s: %w", a.Name, a.WorkloadID, err)
		}
		return s.log.append(tx, actor, "approval.withdraw", tenant, approvalDetail(a))
	})
}

func approvalDetail(a kbs.Approval) string {
	return fmt.Sprintf("%s for workload %s, registration %s", a.Name, a.WorkloadID, a.RegistrationDigest)
}

// Approvals is what a tenant has approved.
func (s approvals) Approvals(ctx context.Context, tenant string) (kbs.ApprovalList, error) {
	all, err := list(ctx, s.db, scanApproval, "SELECT name, workload, registration FROM approvals WHERE tenant = ? ORDER BY name, workload", tenant)
	if err != nil {
		return kbs.ApprovalList{}, fmt.Errorf("listing approvals: %w", err)
	}
	return kbs.ApprovalList{Approvals: all}, nil
}

// Given is an approval as the page of approvals shows it.
type Given struct {
	kbs.Approval
	Tenant, By string
	At         time.Time
}

// Given is at most limit approvals, latest first: one tenant's, or everybody's if
// it is empty; for one workload, if that is not empty.
func (s approvals) Given(ctx context.Context, tenant, workload string, limit int) ([]Given, error) {
	all, err := list(ctx, s.db, scanGiven, `SELECT tenant, name, workload, registration, at, by FROM approvals
		WHERE (?1 = '' OR tenant = ?1) AND (?2 = '' OR workload = ?2) ORDER BY at DESC, tenant, name, workload, registration LIMIT ?3`,
		tenant, workload, limit)
	if err != nil {
		return nil, fmt.Errorf("listing approvals: %w", err)
	}
	return all, nil
}

// Missing is those of tenants who have not approved a.
func (s approvals) Missing(ctx context.Context, tenants []string, a kbs.Approval) ([]string, error) {
	missing, err := missingApprovals(ctx, s.db, tenants, a.Name, a.WorkloadID, a.RegistrationDigest)
	if err != nil {
		return nil, fmt.Errorf("reading approvals: %w", err)
	}
	return missing, nil
}

func scanGiven(r row) (g Given, err error) {
	var d []byte
	var at int64
	if err := r.Scan(&g.Tenant, &g.Name, &g.WorkloadID, &d, &at, &g.By); err != nil {
		return g, err
	}
	if len(d) != len(g.RegistrationDigest) {
		return g, ErrTampered
	}
	g.RegistrationDigest, g.At = kbs.Digest(d), fromMilli(at)
	return g, nil
}

func scanApproval(r row) (a kbs.Approval, err error) {
	var d []byte
	if err := r.Scan(&a.Name, &a.WorkloadID, &d); err != nil {
		return a, err
	}
	if len(d) != len(a.RegistrationDigest) {
		return a, ErrTampered
	}
	a.RegistrationDigest = kbs.Digest(d)
	return a, nil
}

// approved is nil if every one of tenants has approved the release of name to
// exactly this registration, else ErrNotApproved.
func approved(tx *sql.Tx, tenants []string, name, workload string, registration kbs.Digest) error {
	missing, err := missingApprovals(context.Background(), tx, tenants, name, workload, registration)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("tenant %s has not approved %s for workload %s with registration %s: %w", missing[0], name, workload, registration, ErrNotApproved)
	}
	return nil
}

// missingApprovals are those of tenants who have not approved it.
func missingApprovals(ctx context.Context, from rowQuerier, tenants []string, name, workload string, registration kbs.Digest) (missing []string, err error) {
	for _, t := range tenants {
		var yes bool
		err := from.QueryRowContext(ctx, "SELECT EXISTS(SELECT 1 FROM approvals WHERE tenant = ? AND name = ? AND workload = ? AND registration = ?)",
			t, name, workload, registration[:]).Scan(&yes)
		if err != nil {
			return nil, err
		}
		if !yes {
			missing = append(missing, t)
		}
	}
	return missing, nil
}
