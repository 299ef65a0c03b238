package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// sealedMeta are the values in meta that are sealed. plainMeta are not. A name
// in neither list stops a change of MasterKey: what it does not know to seal
// anew would be lost.
var (
	sealedMeta = []string{checkName, auditKeyName, signingKeyName, sessionSecretName}
	plainMeta  = []string{auditHeadName}
)

// RotateMasterKey puts every sealed value under another MasterKey, all or
// nothing. Processes that have the store open go on if their
// Options.ReloadMasterKeys finds the new one.
func (s *DB) RotateMasterKey(ctx context.Context, master secret.Bytes, actor string) error {
	if s.sealer == nil {
		return fmt.Errorf("rotating master key: %w", ErrLocked)
	}
	to, err := masterkey.NewSealer(master, s.opts.Rand)
	if err != nil {
		return fmt.Errorf("rotating master key: %w", err)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		for _, rewrap := range []func(*sql.Tx, *masterkey.Sealer) error{s.rewrapMeta, s.rewrapWorkloads, s.rewrapResources} {
			if err := rewrap(tx, to); err != nil {
				return err
			}
		}
		return s.audit(tx, actor, "store.rotate-master-key", "", "")
	})
	if err != nil {
		return fmt.Errorf("rotating master key: %w", err)
	}
	s.sealer.Follow(to)
	return nil
}

func (s *DB) rewrapMeta(tx *sql.Tx, to *masterkey.Sealer) error {
	var unknown string
	known := []any{}
	for _, name := range slices.Concat(sealedMeta, plainMeta) {
		known = append(known, name)
	}
	err := tx.QueryRow("SELECT name FROM meta WHERE name NOT IN (?"+strings.Repeat(",?", len(known)-1)+") LIMIT 1", known...).Scan(&unknown)
	if err == nil {
		return fmt.Errorf("the store holds %q, which this version cannot seal anew", unknown)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	for _, name := range sealedMeta {
		var sealed []byte
		err := tx.QueryRow("SELECT value FROM meta WHERE name = ?", name).Scan(&sealed)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		if sealed, err = s.sealer.Rewrap(sealed, masterkey.Location("meta", name), to); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := tx.Exec("UPDATE meta SET value = ? WHERE name = ?", sealed, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *DB) rewrapWorkloads(tx *sql.Tx, to *masterkey.Sealer) error {
	for after := ""; ; {
		var id string
		var canonical, key, staged []byte
		var rotation *string
		err := tx.QueryRow("SELECT id, registration, disk_key, staged_key, staged_rotation FROM workloads WHERE id > ? ORDER BY id LIMIT 1", after).
			Scan(&id, &canonical, &key, &staged, &rotation)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if key, err = s.sealer.Rewrap(key, diskKeyLocation(id, canonical), to); err != nil {
			return fmt.Errorf("disk key of workload %s: %w", id, err)
		}
		if rotation != nil {
			if staged, err = s.sealer.Rewrap(staged, stagedLocation(id, *rotation, canonical), to); err != nil {
				return fmt.Errorf("staged disk key of workload %s: %w", id, err)
			}
		}
		if _, err := tx.Exec("UPDATE workloads SET disk_key = ?, staged_key = ? WHERE id = ?", key, staged, id); err != nil {
			return err
		}
		after = id
	}
}

func (s *DB) rewrapResources(tx *sql.Tx, to *masterkey.Sealer) error {
	var id kbs.ResourceID
	var version int64
	for {
		var value, policy []byte
		err := tx.QueryRow(`SELECT repo, type, tag, version, value, policy FROM resources
			WHERE (repo, type, tag, version) > (?,?,?,?) ORDER BY repo, type, tag, version LIMIT 1`, id.Repo, id.Type, id.Tag, version).
			Scan(&id.Repo, &id.Type, &id.Tag, &version, &value, &policy)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if value, err = s.sealer.Rewrap(value, resourceLocation(id, version, policy), to); err != nil {
			return fmt.Errorf("resource %s version %d: %w", id, version, err)
		}
		_, err = tx.Exec("UPDATE resources SET value = ? WHERE repo = ? AND type = ? AND tag = ? AND version = ?", value, id.Repo, id.Type, id.Tag, version)
		if err != nil {
			return err
		}
	}
}

// followMasterKey notices, at the start of each transaction, that another
// process has changed the MasterKey. Without that, this one would seal a
// secret under the old key, and nobody could ever open it.
func (s *DB) followMasterKey(tx *sql.Tx) error {
	if s.sealer == nil {
		return nil
	}
	var check []byte
	err := tx.QueryRow("SELECT value FROM meta WHERE name = ?", checkName).Scan(&check)
	if errors.Is(err, sql.ErrNoRows) || err == nil && s.follows(check) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.adopt(check)
}

func (s *DB) follows(check []byte) bool {
	in := s.check.Load()
	return in != nil && bytes.Equal(check, *in)
}

// adopt seals with the MasterKey that check is under from now on:
// ErrWrongMasterKey if it is not to be had.
func (s *DB) adopt(check []byte) error {
	if holdsCheck(s.sealer, check) {
		s.check.Store(&check)
		return nil
	}
	if s.opts.ReloadMasterKeys == nil {
		return ErrWrongMasterKey
	}
	keys, err := s.opts.ReloadMasterKeys()
	defer func() {
		for _, k := range keys {
			k.Wipe()
		}
	}()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongMasterKey, err)
	}
	for _, k := range keys {
		other, err := masterkey.NewSealer(k, s.opts.Rand)
		if err != nil {
			return err
		}
		if holdsCheck(other, check) {
			s.sealer.Follow(other)
			s.check.Store(&check)
			return nil
		}
	}
	return ErrWrongMasterKey
}

func holdsCheck(s *masterkey.Sealer, check []byte) bool {
	return s.Holds(check, masterkey.Location("meta", checkName), secret.New([]byte(checkPlain)))
}
