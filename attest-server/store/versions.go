package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// A workload has one row for each of its versions: the newest under its id, those
// before under ID@N. So whatever else is a workload's, and not a version's, goes
// by the id, whose row is there as long as the workload is.

// versionsOf is the condition that a row is of the workload that id, a parameter,
// names. In the order of bytes '@' is followed by 'A', and no id has either
// behind it.
func versionsOf(id string) string {
	return fmt.Sprintf("(id = %[1]s OR (id > %[1]s || '@' AND id < %[1]s || 'A'))", id)
}

// rowOf is the row that an owner's name for a workload, or for one version of it,
// means. It need not be there.
func rowOf(ctx context.Context, from rowQuerier, name string) (string, error) {
	id, version, ok := kbs.SplitVersion(name)
	if !ok {
		return "", fmt.Errorf("workload %s: %w", name, ErrNotFound)
	}
	if version == 0 {
		return id, nil
	}
	var newest bool
	err := from.QueryRowContext(ctx, "SELECT EXISTS(SELECT 1 FROM workloads WHERE id = ? AND version = ?)", id, version).Scan(&newest)
	if newest {
		return id, err
	}
	return name, err
}

// aside says in the audit log which version was meant, if not the newest: the
// object of an entry is always the workload.
func aside(row string) string {
	if _, version, ok := kbs.SplitVersion(row); ok && version > 0 {
		return fmt.Sprintf("version %d", version)
	}
	return ""
}

func asideColon(row string) string {
	if text := aside(row); text != "" {
		return text + ": "
	}
	return ""
}

// VersionWith is the version of the workload whose guests have that identity, or
// the newest if none has: the guest's rules then fail against that.
func (s workloads) VersionWith(ctx context.Context, id string, identity kbs.Digest) (Workload, error) {
	w, err := s.Workload(ctx, id)
	if err != nil || identity.IsZero() || w.Registration.IdentityDigest == identity || w.Version == 1 {
		return w, err
	}
	rows, err := list(ctx, s.db, func(r row) (name string, err error) { return name, r.Scan(&name) },
		"SELECT id FROM workloads WHERE "+versionsOf("?1")+" ORDER BY version DESC", id)
	if err != nil {
		return Workload{}, fmt.Errorf("reading versions of workload %s: %w", id, err)
	}
	for _, name := range rows {
		old, err := s.Workload(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil || old.Registration.IdentityDigest == identity {
			return old, err
		}
	}
	return w, nil
}

// Versions is every version of the workload that name is of, the newest first.
func (s workloads) Versions(ctx context.Context, name string) ([]kbs.Version, error) {
	all, err := list(ctx, s.db, func(r row) (v kbs.Version, err error) {
		var registered int64
		var revoked, ends, last *int64
		err = r.Scan(&v.Name, &v.Version, &v.Image, &registered, &revoked, &ends, &last)
		v.RegisteredAt, v.RevokedAt, v.EndsAt, v.LastRelease = fromMilli(registered), fromNullMilli(revoked), fromNullMilli(ends), fromNullMilli(last)
		return v, err
	}, "SELECT id, version, image, registered_at, revoked_at, ends_at, last_release FROM workloads WHERE "+versionsOf("?1")+" ORDER BY version DESC", kbs.WorkloadOf(name))
	if err != nil {
		return nil, fmt.Errorf("listing versions of workload %s: %w", name, err)
	}
	return all, nil
}

// Ended says whether nothing is released to w any more because a later version
// is there.
func (w *Workload) Ended(now time.Time) bool { return w.EndsAt != nil && !now.Before(*w.EndsAt) }

// Replace registers the next version of a workload, and ends the one before at
// r.NotAfter, in one transaction. created is false if exactly that is the newest
// already. ErrNotFound: there is none to replace; ErrChanged: the newest is not
// the expected one, so that of two at once one succeeds.
func (s workloads) Replace(ctx context.Context, reg kbs.Registration, boot *kbs.Boot, diskKey secret.Bytes, r kbs.Replace, actor string) (created bool, err error) {
	canonical, err := kbs.Canonical(reg)
	if err != nil {
		return false, fmt.Errorf("encoding registration: %w", err)
	}
	if s.sealer == nil {
		return false, fmt.Errorf("sealing disk key: %w", ErrLocked)
	}
	id := reg.WorkloadID
	err = s.write(ctx, func(tx *sql.Tx) error {
		created = false
		var have []byte
		var version int64
		err := tx.QueryRow("SELECT registration, version FROM workloads WHERE id = ?", id).Scan(&have, &version)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("workload %s: %w", id, ErrNotFound)
		case err != nil:
			return err
		case string(have) == string(canonical):
			_, err := s.registered(tx, id, canonical, diskKey)
			return err
		case kbs.Sum384(have) != r.Expect:
			return fmt.Errorf("workload %s: %w", id, ErrChanged)
		}
		sealed, err := s.sealer.Seal(diskKey, diskKeyLocation(id, canonical))
		if err != nil {
			return fmt.Errorf("sealing disk key: %w", err)
		}
		if err := s.makeRoom(tx, id, actor); err != nil {
			return err
		}
		if err := putAside(tx, id, version, r.NotAfter); err != nil {
			return err
		}
		created = true
		return s.insertVersion(ctx, tx, reg, boot, version+1, canonical, sealed, r.NotAfter, actor)
	})
	if err != nil {
		return false, fmt.Errorf("replacing workload: %w", err)
	}
	return created, nil
}

// insertVersion writes the newest version over what putAside has left a copy of.
func (s workloads) insertVersion(ctx context.Context, tx *sql.Tx, reg kbs.Registration, boot *kbs.Boot, version int64, canonical, sealed []byte, ends time.Time, actor string) error {
	id := reg.WorkloadID
	_, err := tx.Exec(`UPDATE workloads SET tee = ?, image = ?, registration = ?, disk_key = ?, registered_at = ?, registered_by = ?, version = ?,
		revoked_at = NULL, ends_at = NULL, releases = 0, denials = 0, last_release = NULL, released = 0, day = 0, released_on_day = 0,
		staged_key = NULL, staged_rotation = NULL, staged_at = NULL, rotation = NULL, rotated_at = NULL WHERE id = ?`,
		string(reg.ReferenceValues.TEE), reg.Image, canonical, sealed, unixMilli(s.clock()), actor, version, id)
	if err != nil {
		return fmt.Errorf("storing registration: %w", err)
	}
	if err := s.claim(ctx, tx, reg, id); err != nil {
		return err
	}
	if err := keepBoot(tx, id, boot); err != nil {
		return err
	}
	return s.log.append(tx, actor, "workload.replace", id, fmt.Sprintf("version %d, registration %s%s; version %d ends %s",
		version, kbs.Sum384(canonical), leaveOf(reg.ReferenceValues), version-1, ends.UTC().Format(time.RFC3339)))
}

// versionColumns are what a row has of one version: everything but its id.
const versionColumns = `tee, image, registration, disk_key, registered_at, registered_by, revoked_at, releases, denials, last_release,
	staged_key, staged_rotation, staged_at, rotation, rotated_at, released, day, released_on_day, version, ends_at`

// putAside copies the newest version to a row of its own, which ends then, if it
// did not end before.
func putAside(tx *sql.Tx, id string, version int64, ends time.Time) error {
	old := kbs.VersionName(id, version)
	if _, err := tx.Exec("INSERT INTO workloads(id, "+versionColumns+") SELECT ?2, "+versionColumns+" FROM workloads WHERE id = ?1", id, old); err != nil {
		return fmt.Errorf("keeping the version before: %w", err)
	}
	if _, err := tx.Exec("UPDATE workloads SET ends_at = ? WHERE id = ? AND (ends_at IS NULL OR ends_at > ?)", unixMilli(ends), old, unixMilli(ends)); err != nil {
		return err
	}
	return follow(tx, id, old)
}

// follow gives a version's identities, boot and machines its new row.
func follow(tx *sql.Tx, from, to string) error {
	if _, err := tx.Exec("DELETE FROM machine_grants WHERE workload = ?1 AND machine IN (SELECT machine FROM machine_grants WHERE workload = ?2)", to, from); err != nil {
		return err
	}
	for _, table := range []string{"identities", "boots", "machine_grants"} {
		if _, err := tx.Exec("UPDATE "+table+" SET workload = ? WHERE workload = ?", to, from); err != nil {
			return fmt.Errorf("moving %s: %w", table, err)
		}
	}
	return nil
}

// makeRoom forgets the oldest version that is over, if there are as many as are
// kept.
func (s workloads) makeRoom(tx *sql.Tx, id, actor string) error {
	var n int64
	if err := tx.QueryRow("SELECT count(*) FROM workloads WHERE "+versionsOf("?1"), id).Scan(&n); err != nil || n < kbs.MaxVersions {
		return err
	}
	var old string
	err := tx.QueryRow("SELECT id FROM workloads WHERE "+versionsOf("?1")+" AND id <> ?1 AND (revoked_at IS NOT NULL OR ends_at <= ?2) ORDER BY version LIMIT 1",
		id, unixMilli(s.clock())).Scan(&old)
	if errors.Is(err, sql.ErrNoRows) {
		return &VersionsError{WorkloadID: id}
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM workloads WHERE id = ?", old); err != nil {
		return err
	}
	return s.log.append(tx, actor, "workload.remove", id, aside(old)+", which was over: as many are kept")
}

// removeNewest removes the newest version of a workload that has others. The one
// before takes its place, and its end is forgotten, unless that has come.
func (s workloads) removeNewest(tx *sql.Tx, id string, version int64, before string) error {
	for _, query := range []string{"DELETE FROM identities WHERE workload = ?", "DELETE FROM boots WHERE workload = ?"} {
		if _, err := tx.Exec(query, id); err != nil {
			return err
		}
	}
	// What machines were granted of it is of a version that is gone.
	if err := follow(tx, id, kbs.VersionName(id, version)); err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE workloads SET ("+versionColumns+") = (SELECT "+versionColumns+" FROM workloads WHERE id = ?2) WHERE id = ?1", id, before); err != nil {
		return fmt.Errorf("taking back the version before: %w", err)
	}
	if _, err := tx.Exec("UPDATE workloads SET ends_at = NULL WHERE id = ? AND ends_at > ?", id, unixMilli(s.clock())); err != nil {
		return err
	}
	if err := follow(tx, before, id); err != nil {
		return err
	}
	return changed(tx.Exec("DELETE FROM workloads WHERE id = ?", before))
}

// remove deletes a workload with all its versions, or one version.
func (s workloads) remove(tx *sql.Tx, name string) error {
	id, version, ok := kbs.SplitVersion(name)
	switch {
	case !ok:
		return ErrNotFound
	case version == 0:
		return changed(tx.Exec("DELETE FROM workloads WHERE "+versionsOf("?1"), id))
	}
	row, err := rowOf(context.Background(), tx, name)
	if err != nil {
		return err
	}
	var before string
	err = tx.QueryRow("SELECT id FROM workloads WHERE "+versionsOf("?1")+" AND id <> ?1 ORDER BY version DESC LIMIT 1", id).Scan(&before)
	switch {
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	case err == nil && row == id:
		return s.removeNewest(tx, id, version, before)
	}
	return changed(tx.Exec("DELETE FROM workloads WHERE id = ?", row))
}
