package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// Register stores a registration with its DiskKey. created is false if
// exactly that was there already. Otherwise a taken id is a *ConflictError
// and a taken launch digest a *DuplicateDigestError; nothing is overwritten.
func (s *DB) Register(ctx context.Context, reg kbs.Registration, diskKey secret.Bytes, actor string) (created bool, err error) {
	canonical, err := kbs.Canonical(reg)
	if err != nil {
		return false, fmt.Errorf("encoding registration: %w", err)
	}
	if s.sealer == nil {
		return false, fmt.Errorf("sealing disk key: %w", ErrLocked)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		created = false
		same, err := s.registered(tx, reg.WorkloadID, canonical, diskKey)
		if err != nil || same {
			return err
		}
		sealed, err := s.sealer.Seal(diskKey, diskKeyLocation(reg.WorkloadID, canonical))
		if err != nil {
			return fmt.Errorf("sealing disk key: %w", err)
		}
		created = true
		return s.insertWorkload(tx, reg, canonical, sealed, actor)
	})
	if err != nil {
		return false, err
	}
	return created, nil
}

// registered says whether exactly this is registered; something else under
// the same id is an error.
func (s *DB) registered(tx *sql.Tx, id string, canonical []byte, diskKey secret.Bytes) (bool, error) {
	var have, sealed []byte
	var revoked *int64
	err := tx.QueryRow("SELECT registration, disk_key, revoked_at FROM workloads WHERE id = ?", id).Scan(&have, &sealed, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if revoked != nil || string(have) != string(canonical) {
		return false, &ConflictError{WorkloadID: id, Revoked: revoked != nil}
	}
	old, err := s.sealer.Open(sealed, diskKeyLocation(id, have))
	if err != nil {
		return false, fmt.Errorf("opening disk key of workload %s: %w", id, ErrTampered)
	}
	defer old.Wipe()
	if !old.Equal(diskKey) {
		return false, &ConflictError{WorkloadID: id}
	}
	return true, nil
}

func (s *DB) insertWorkload(tx *sql.Tx, reg kbs.Registration, canonical, sealed []byte, actor string) error {
	if err := checkQuota(tx, reg.WorkloadID, "workloads"); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO workloads(id, tee, image, registration, disk_key, registered_at, registered_by)
		VALUES(?,?,?,?,?,?,?)`, reg.WorkloadID, string(reg.ReferenceValues.TEE), reg.Image, canonical, sealed, unixMilli(s.opts.Clock()), actor)
	if err != nil {
		return fmt.Errorf("storing registration: %w", err)
	}
	for _, m := range reg.ReferenceValues.Measurements {
		if err := claimDigest(tx, m.LaunchDigest, reg.WorkloadID); err != nil {
			return err
		}
	}
	return s.audit(tx, actor, "workload.register", reg.WorkloadID, "registration "+kbs.Sum384(canonical).String())
}

// claimDigest makes d the workload's own. The same digest twice within one
// workload (two profiles that measure alike) is no conflict.
func claimDigest(tx *sql.Tx, d kbs.LaunchDigest, id string) error {
	var owner string
	err := tx.QueryRow("SELECT workload FROM measurements WHERE launch_digest = ?", d[:]).Scan(&owner)
	switch {
	case err == nil && owner == id:
		return nil
	case err == nil:
		return &DuplicateDigestError{LaunchDigest: d, WorkloadID: owner}
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	_, err = tx.Exec("INSERT INTO measurements(launch_digest, workload) VALUES(?, ?)", d[:], id)
	return err
}

// diskKeyLocation ties a sealed DiskKey to the registration's every byte: who
// edits reference values in the database makes the key unusable, not his.
func diskKeyLocation(id string, canonical []byte) []byte {
	return masterkey.Location("workloads", "disk_key", id, string(canonical))
}

const statusColumns = `registration, registered_at, registered_by, revoked_at, releases, denials, last_release,
	image, released, day, released_on_day, staged_rotation, staged_at, rotated_at`

// selectWorkload is followed by what yields the id. ?2 is the tenant's name.
const selectWorkload = "SELECT " + statusColumns + ", (SELECT policy FROM tenants WHERE name = ?2) FROM workloads WHERE id = "

type row interface{ Scan(dest ...any) error }

func (s *DB) scanWorkload(r row, id string) (Workload, error) {
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
func (s *DB) Workload(ctx context.Context, id string) (Workload, error) {
	return s.scanWorkload(s.db.QueryRowContext(ctx, selectWorkload+"?1", id, kbs.TenantOf(id)), id)
}

// WorkloadByDigest is the one workload that has d among its measurements,
// whether its time has come or not, or ErrNotFound.
func (s *DB) WorkloadByDigest(ctx context.Context, d kbs.LaunchDigest) (Workload, error) {
	if d.IsZero() {
		return Workload{}, fmt.Errorf("workload with launch digest zero: %w", ErrNotFound)
	}
	w, err := s.scanWorkload(s.db.QueryRowContext(ctx, selectWorkload+"(SELECT workload FROM measurements WHERE launch_digest = ?1)", d[:], ""),
		"with launch digest "+d.String())
	if err != nil {
		return Workload{}, err
	}
	if w.TenantPolicy, err = s.TenantPolicy(ctx, kbs.TenantOf(w.Registration.WorkloadID)); err != nil {
		return Workload{}, err
	}
	return w, nil
}

// Workloads is a page of at most limit workloads whose ids follow after.
func (s *DB) Workloads(ctx context.Context, after string, limit int) (kbs.WorkloadList, error) {
	return s.TenantWorkloads(ctx, "", after, limit)
}

// TenantWorkloads is Workloads of one tenant alone.
func (s *DB) TenantWorkloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, tee, registration, image, registered_at, revoked_at, releases, denials, last_release
		FROM workloads WHERE id > ?1 AND (?2 = '' OR id = ?2 OR (id >= ?2 || '.' AND id < ?2 || '/')) ORDER BY id LIMIT ?3`, after, tenant, limit+1)
	if err != nil {
		return kbs.WorkloadList{}, fmt.Errorf("listing workloads: %w", err)
	}
	defer rows.Close()
	list := kbs.WorkloadList{Workloads: []kbs.WorkloadSummary{}}
	for rows.Next() {
		var w kbs.WorkloadSummary
		var registered int64
		var revoked, last *int64
		var canonical []byte
		if err := rows.Scan(&w.WorkloadID, &w.TEE, &canonical, &w.Image, &registered, &revoked, &w.Releases, &w.Denials, &last); err != nil {
			return kbs.WorkloadList{}, fmt.Errorf("listing workloads: %w", err)
		}
		var reg struct{ Type kbs.RegistrationType }
		if err := json.Unmarshal(canonical, &reg); err != nil {
			return kbs.WorkloadList{}, fmt.Errorf("listing workloads: %s: %w: %w", w.WorkloadID, ErrTampered, err)
		}
		w.Type = reg.Type
		w.RegisteredAt, w.RevokedAt, w.LastRelease = fromMilli(registered), fromNullMilli(revoked), fromNullMilli(last)
		list.Workloads = append(list.Workloads, w)
	}
	if len(list.Workloads) > limit {
		list.Workloads = list.Workloads[:limit]
		list.Next = list.Workloads[limit-1].WorkloadID
	}
	return list, rows.Err()
}

// Revoke ends releases for a workload. Revoking twice changes nothing.
func (s *DB) Revoke(ctx context.Context, id, actor string) (w Workload, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		res, err := tx.Exec("UPDATE workloads SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", unixMilli(s.opts.Clock()), id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			if err := s.audit(tx, actor, "workload.revoke", id, ""); err != nil {
				return err
			}
		}
		w, err = s.scanWorkload(tx.QueryRow(selectWorkload+"?1", id, kbs.TenantOf(id)), id)
		return err
	})
	return w, err
}

// Remove deletes a registration, its DiskKey and its claim on launch digests.
func (s *DB) Remove(ctx context.Context, id, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		res, err := tx.Exec("DELETE FROM workloads WHERE id = ?", id)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("workload %s: %w", id, ErrNotFound)
		}
		return s.audit(tx, actor, "workload.remove", id, "")
	})
}

// Release counts a release in the session, audits it, and only then returns
// the DiskKey. The workload must still be as it was appraised: neither
// revoked nor, under the same id, another one. A registration that allows no
// more releases is ErrLimit, which is audited too.
func (s *DB) Release(ctx context.Context, id string, appraised kbs.Digest, session string) (secret.Bytes, error) {
	return s.release(ctx, id, appraised, session, false)
}

func (s *DB) release(ctx context.Context, id string, appraised kbs.Digest, session string, staged bool) (secret.Bytes, error) {
	var r releasable
	var refused error
	err := s.write(ctx, func(tx *sql.Tx) (err error) {
		if r, err = s.readReleasable(tx, id, appraised, staged); err != nil {
			return err
		}
		if refused = s.approvedRelease(tx, id, appraised, r.reg.Release); refused == nil {
			refused = s.countRelease(tx, id, session, r.reg.Release)
		}
		switch {
		case errors.Is(refused, ErrLimit), errors.Is(refused, ErrNotApproved):
			return s.audit(tx, "session/"+session, "key.refuse", id, refused.Error())
		case refused != nil:
			return refused
		}
		return s.audit(tx, "session/"+session, "key.release", id, r.detail())
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("releasing disk key: %w", err)
	}
	k, err := s.sealer.Open(r.sealed, r.location)
	if errors.Is(err, masterkey.ErrSealed) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening disk key of workload %s: %w", id, err)
	}
	return k, nil
}

// releasable is a DiskKey that may be released as far as its registration is
// concerned.
type releasable struct {
	reg              kbs.Registration
	sealed, location []byte
	rotation         string // empty: the key in use
}

func (r *releasable) detail() string {
	if r.rotation != "" {
		return "rotation " + r.rotation
	}
	return ""
}

func (s *DB) readReleasable(tx *sql.Tx, id string, appraised kbs.Digest, staged bool) (r releasable, err error) {
	var canonical, next []byte
	var revoked *int64
	var rotation *string
	err = tx.QueryRow("SELECT registration, disk_key, staged_key, staged_rotation, revoked_at FROM workloads WHERE id = ?", id).
		Scan(&canonical, &r.sealed, &next, &rotation, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, fmt.Errorf("workload %s: %w", id, ErrNotFound)
	case err != nil:
		return r, err
	case revoked != nil:
		return r, fmt.Errorf("workload %s: %w", id, ErrRevoked)
	case kbs.Sum384(canonical) != appraised:
		return r, fmt.Errorf("workload %s: %w", id, ErrChanged)
	case staged && rotation == nil:
		return r, fmt.Errorf("staged disk key of workload %s: %w", id, ErrNotFound)
	}
	if r.reg, _, err = s.registrations.read(canonical); err != nil {
		return r, fmt.Errorf("reading workload %s: %w: %w", id, ErrTampered, err)
	}
	r.location = diskKeyLocation(id, canonical)
	if staged {
		r.sealed, r.location, r.rotation = next, stagedLocation(id, *rotation, canonical), *rotation
	}
	return r, nil
}
