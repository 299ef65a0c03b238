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
	image, released, day, released_on_day, staged_rotation, staged_at, rotated_at, version, ends_at`

// selectWorkload lacks, at its end, an expression for the id. ?2 is the
// tenant's name.
const selectWorkload = "SELECT " + statusColumns + ", (SELECT policy FROM tenants WHERE name = ?2) FROM workloads WHERE id = "

func (s workloads) scanWorkload(r row, id string) (Workload, error) {
	var w Workload
	var canonical []byte
	var registered int64
	var revoked, last, stagedAt, rotated, ends *int64
	var rotation *string
	err := r.Scan(&canonical, &registered, &w.RegisteredBy, &revoked, &w.Releases, &w.Denials, &last,
		&w.Image, &w.counters.total, &w.counters.day, &w.counters.onDay, &rotation, &stagedAt, &rotated, &w.Version, &ends, &w.TenantPolicy)
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
	w.Released, w.RotatedAt, w.EndsAt = w.counters.total, fromNullMilli(rotated), fromNullMilli(ends)
	if rotation != nil {
		w.Rotation, w.StagedAt = *rotation, fromNullMilli(stagedAt)
	}
	return w, nil
}

// Workload is the newest version of workload ID, or the version that ID@N names;
// or ErrNotFound.
func (s workloads) Workload(ctx context.Context, name string) (Workload, error) {
	row, err := rowOf(ctx, s.db, name)
	if err != nil {
		return Workload{}, err
	}
	return s.scanWorkload(s.db.QueryRowContext(ctx, selectWorkload+"?1", row, kbs.TenantOf(kbs.WorkloadOf(row))), row)
}

// Workloads is a page of at most limit workloads whose ids follow after: one
// tenant's, or everybody's if it is empty.
func (s workloads) Workloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error) {
	all, err := list(ctx, s.db, scanSummary, `SELECT id, tee, registration, image, registered_at, revoked_at, releases, denials, last_release, version, ends_at
		FROM workloads WHERE id > ?1 AND (?2 = '' OR `+owned("id", "?2")+`) ORDER BY id LIMIT ?3`, after, tenant, limit+1)
	if err != nil {
		return kbs.WorkloadList{}, fmt.Errorf("listing workloads: %w", err)
	}
	first, next := page(all, limit, func(w kbs.WorkloadSummary) string { return w.WorkloadID })
	return kbs.WorkloadList{Workloads: first, Next: next}, nil
}

func scanSummary(r row) (w kbs.WorkloadSummary, err error) {
	var registered int64
	var revoked, last, ends *int64
	var canonical []byte
	if err := r.Scan(&w.WorkloadID, &w.TEE, &canonical, &w.Image, &registered, &revoked, &w.Releases, &w.Denials, &last, &w.Version, &ends); err != nil {
		return w, err
	}
	var reg struct{ Type kbs.RegistrationType }
	if err := json.Unmarshal(canonical, &reg); err != nil {
		return w, fmt.Errorf("%s: %w: %w", w.WorkloadID, ErrTampered, err)
	}
	w.Type = reg.Type
	w.RegisteredAt, w.RevokedAt, w.LastRelease, w.EndsAt = fromMilli(registered), fromNullMilli(revoked), fromNullMilli(last), fromNullMilli(ends)
	return w, nil
}

// Revoke ends releases for all versions of workload ID, or for the version that
// ID@N names. Revoking twice changes nothing.
func (s workloads) Revoke(ctx context.Context, name, actor string) (w Workload, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		row, err := rowOf(ctx, tx, name)
		if err != nil {
			return err
		}
		which := "id = ?2"
		if name == kbs.WorkloadOf(name) {
			which = versionsOf("?2")
		}
		err = changed(tx.Exec("UPDATE workloads SET revoked_at = ?1 WHERE "+which+" AND revoked_at IS NULL", unixMilli(s.clock()), row))
		if err == nil {
			err = s.log.append(tx, actor, "workload.revoke", kbs.WorkloadOf(row), aside(name))
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		w, err = s.scanWorkload(tx.QueryRow(selectWorkload+"?1", row, kbs.TenantOf(kbs.WorkloadOf(row))), row)
		return err
	})
	return w, err
}

// Remove deletes workload ID, or the version that ID@N names: registration,
// DiskKey and claim on launch digests. ErrHasVolumes: the keys of the workload's
// volumes would be nobody's.
func (s workloads) Remove(ctx context.Context, name, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		err := removeVersions(tx, name, s.clock())
		if err == nil {
			err = refuseWithVolumes(tx, kbs.WorkloadOf(name))
		}
		if err != nil {
			return fmt.Errorf("workload %s: %w", name, err)
		}
		return s.log.append(tx, actor, "workload.remove", kbs.WorkloadOf(name), aside(name))
	})
}

// CheckLimits says whether a new session could get the key now: nil or
// ErrLimit. Release decides; this is for telling the owner why.
func (w *Workload) CheckLimits(now time.Time) error {
	c := w.counters
	return c.allow(w.Registration.Release, now, false)
}
