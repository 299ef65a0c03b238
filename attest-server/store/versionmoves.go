package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// versionColumns are what a row has of one version: everything but its id.
const versionColumns = `tee, image, registration, disk_key, registered_at, registered_by, revoked_at, releases, denials, last_release,
	staged_key, staged_rotation, staged_at, rotation, rotated_at, released, day, released_on_day, version, ends_at, drawn_at, incarnation`

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

// removeNewest removes the newest version of a workload that has others. The one
// before takes its place, and its end is forgotten, unless that has come.
func removeNewest(tx *sql.Tx, id string, version int64, before string, now time.Time) error {
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
	if _, err := tx.Exec("UPDATE workloads SET ends_at = NULL WHERE id = ? AND ends_at > ?", id, unixMilli(now)); err != nil {
		return err
	}
	if err := follow(tx, before, id); err != nil {
		return err
	}
	return changed(tx.Exec("DELETE FROM workloads WHERE id = ?", before))
}

// removeVersions deletes a workload with all its versions, or one version.
func removeVersions(tx *sql.Tx, name string, now time.Time) error {
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
		return removeNewest(tx, id, version, before, now)
	}
	return changed(tx.Exec("DELETE FROM workloads WHERE id = ?", row))
}
