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
		n, err := s.incarnate(ctx, tx, id)
		if err != nil {
			return err
		}
		of, err := s.sealIncarnation(n, id, canonical)
		if err != nil {
			return err
		}
		if err := s.makeRoom(tx, id, actor); err != nil {
			return err
		}
		if err := putAside(tx, id, version, r.NotAfter); err != nil {
			return err
		}
		created = true
		return s.insertVersion(ctx, tx, reg, boot, version+1, canonical, sealed, of, r.NotAfter, actor)
	})
	if err != nil {
		return false, fmt.Errorf("replacing workload: %w", err)
	}
	return created, nil
}

// insertVersion writes the newest version over what putAside has left a copy of.
func (s workloads) insertVersion(ctx context.Context, tx *sql.Tx, reg kbs.Registration, boot *kbs.Boot, version int64, canonical, sealed, incarnation []byte, ends time.Time, actor string) error {
	id := reg.WorkloadID
	_, err := tx.Exec(`UPDATE workloads SET tee = ?, image = ?, registration = ?, disk_key = ?, incarnation = ?, registered_at = ?, registered_by = ?, version = ?,
		revoked_at = NULL, ends_at = NULL, releases = 0, denials = 0, last_release = NULL, released = 0, day = 0, released_on_day = 0,
		staged_key = NULL, staged_rotation = NULL, staged_at = NULL, rotation = NULL, rotated_at = NULL, drawn_at = NULL WHERE id = ?`,
		string(reg.ReferenceValues.TEE), reg.Image, canonical, sealed, incarnation, unixMilli(s.clock()), actor, version, id)
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
