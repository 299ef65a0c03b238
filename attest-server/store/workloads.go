package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// workloads are registrations and their DiskKeys.
type workloads struct{ *core }

// Workload is a registration as it stands in the store.
type Workload struct {
	kbs.WorkloadStatus
	Digest kbs.Digest // of the canonical registration
	// TenantPolicy is DB.TenantPolicy of its tenant, read with it.
	TenantPolicy []byte
	counters     counters
}

const statusColumns = `registration, registered_at, registered_by, revoked_at, releases, denials, last_release,
	image, released, day, released_on_day, staged_rotation, staged_at, rotated_at`

// selectWorkload lacks, at its end, an expression for the id. ?2 is the
// tenant's name.
const selectWorkload = "SELECT " + statusColumns + ", (SELECT policy FROM tenants WHERE name = ?2) FROM workloads WHERE id = "

func (s workloads) scanWorkload(r row, id string) (Workload, error) {
	var w Workload
	var canonical []byte
	var registered int64
	var revoked, last, stagedAt, rotated *int64
	var rotation *string
	err := r.Scan(&canonical, &registered, &w.RegisteredBy, &revoked, &w.Releases, &w.Denials, &last,
		&w.Image, &w.counters.total, &w.counters.day, &w.counters.onDay, &rotation, &stagedAt, &rotated, &w.TenantPolicy)
	if errors.Is(err, sql.ErrNoRows) {
		return Workload{}, fmt.Errorf("workload %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Workload{}, fmt.Errorf("reading workload %s: %w", id, err)
	}
	if w.Registration, w.Digest, err = s.registrations.read(canonical); err != nil {
		return Workload{}, fmt.Errorf("reading workload %s: %w: %w", id, ErrTampered, err)
	}
	w.RegisteredAt, w.RevokedAt, w.LastRelease = fromMilli(registered), fromNullMilli(revoked), fromNullMilli(last)
	w.Released, w.RotatedAt = w.counters.total, fromNullMilli(rotated)
	if rotation != nil {
		w.Rotation, w.StagedAt = *rotation, fromNullMilli(stagedAt)
	}
	return w, nil
}

// Workload is the registration under id, or ErrNotFound.
func (s workloads) Workload(ctx context.Context, id string) (Workload, error) {
	return s.scanWorkload(s.db.QueryRowContext(ctx, selectWorkload+"?1", id, kbs.TenantOf(id)), id)
}

// Workloads is a page of at most limit workloads whose ids follow after: one
// tenant's, or everybody's if it is empty.
func (s workloads) Workloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error) {
	all, err := list(ctx, s.db, scanSummary, `SELECT id, tee, registration, image, registered_at, revoked_at, releases, denials, last_release
		FROM workloads WHERE id > ?1 AND (?2 = '' OR `+owned("id", "?2")+`) ORDER BY id LIMIT ?3`, after, tenant, limit+1)
	if err != nil {
		return kbs.WorkloadList{}, fmt.Errorf("listing workloads: %w", err)
	}
	first, next := page(all, limit, func(w kbs.WorkloadSummary) string { return w.WorkloadID })
	return kbs.WorkloadList{Workloads: first, Next: next}, nil
}

func scanSummary(r row) (w kbs.WorkloadSummary, err error) {
	var registered int64
	var revoked, last *int64
	var canonical []byte
	if err := r.Scan(&w.WorkloadID, &w.TEE, &canonical, &w.Image, &registered, &revoked, &w.Releases, &w.Denials, &last); err != nil {
		return w, err
	}
	var reg struct{ Type kbs.RegistrationType }
	if err := json.Unmarshal(canonical, &reg); err != nil {
		return w, fmt.Errorf("%s: %w: %w", w.WorkloadID, ErrTampered, err)
	}
	w.Type = reg.Type
	w.RegisteredAt, w.RevokedAt, w.LastRelease = fromMilli(registered), fromNullMilli(revoked), fromNullMilli(last)
	return w, nil
}

// Revoke ends releases for a workload. Revoking twice changes nothing.
func (s workloads) Revoke(ctx context.Context, id, actor string) (w Workload, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		err := changed(tx.Exec("UPDATE workloads SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", unixMilli(s.clock()), id))
		if err == nil {
			err = s.log.append(tx, actor, "workload.revoke", id, "")
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		w, err = s.scanWorkload(tx.QueryRow(selectWorkload+"?1", id, kbs.TenantOf(id)), id)
		return err
	})
	return w, err
}

// Remove deletes a registration, its DiskKey and its claim on launch digests.
func (s workloads) Remove(ctx context.Context, id, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := changed(tx.Exec("DELETE FROM workloads WHERE id = ?", id)); err != nil {
			return fmt.Errorf("workload %s: %w", id, err)
		}
		return s.log.append(tx, actor, "workload.remove", id, "")
	})
}

// CheckLimits says whether a new session could get the key now: nil or
// ErrLimit. Release decides; this is for telling the owner why.
func (w *Workload) CheckLimits(now time.Time) error {
	c := w.counters
	return c.allow(w.Registration.Release, now, false)
}
