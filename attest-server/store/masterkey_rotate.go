package store

import (
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

// RotateMasterKey puts every sealed value under another MasterKey, all or
// nothing. Processes that have the store open go on if their
// Options.ReloadMasterKeys finds the new one.
func (s *DB) RotateMasterKey(ctx context.Context, master secret.Bytes, actor string) error {
	if s.sealer == nil {
		return fmt.Errorf("rotating master key: %w", ErrLocked)
	}
	to, err := masterkey.NewSealer(master, s.rand)
	if err != nil {
		return fmt.Errorf("rotating master key: %w", err)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		for _, rewrap := range []func(*sql.Tx, *masterkey.Sealer) error{s.rewrapMeta, s.rewrapResources, s.rewrapConfigs, s.rewrapVolumes, s.rewrapWorkloads} {
			if err := rewrap(tx, to); err != nil {
				return err
			}
		}
		return s.log.append(tx, actor, "store.rotate-master-key", "", "")
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
		sealed, err := readMeta(tx.QueryRow(selectMeta, name))
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		if sealed, err = s.sealer.Rewrap(sealed, valueLocation(name), to); err != nil {
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
		var canonical, diskKey, staged, incarnation []byte
		var rotation *string
		err := tx.QueryRow("SELECT id, registration, disk_key, staged_key, staged_rotation, incarnation FROM workloads WHERE id > ? ORDER BY id LIMIT 1", after).
			Scan(&id, &canonical, &diskKey, &staged, &rotation, &incarnation)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if diskKey, err = s.sealer.Rewrap(diskKey, diskKeyLocation(id, canonical), to); err != nil {
			return fmt.Errorf("disk key of workload %s: %w", id, err)
		}
		if rotation != nil {
			if staged, err = s.sealer.Rewrap(staged, stagedLocation(id, *rotation, canonical), to); err != nil {
				return fmt.Errorf("staged disk key of workload %s: %w", id, err)
			}
		}
		if incarnation != nil {
			if incarnation, err = s.sealer.Rewrap(incarnation, incarnationLocation(id, canonical), to); err != nil {
				return fmt.Errorf("incarnation of workload %s: %w", id, err)
			}
		}
		if _, err := tx.Exec("UPDATE workloads SET disk_key = ?, staged_key = ?, incarnation = ? WHERE id = ?", diskKey, staged, incarnation, id); err != nil {
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

func (s *DB) rewrapConfigs(tx *sql.Tx, to *masterkey.Sealer) error {
	var id string
	var version int64
	for {
		var value []byte
		err := tx.QueryRow("SELECT workload, version, value FROM configs WHERE (workload, version) > (?,?) ORDER BY workload, version LIMIT 1", id, version).
			Scan(&id, &version, &value)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := s.readIncarnation(context.Background(), tx, id)
		if err != nil {
			return err
		}
		if value, err = s.sealer.Rewrap(value, configLocation(id, version, n), to); err != nil {
			return fmt.Errorf("configuration of workload %s version %d: %w", id, version, err)
		}
		if _, err := tx.Exec("UPDATE configs SET value = ? WHERE workload = ? AND version = ?", value, id, version); err != nil {
			return err
		}
	}
}

func (s *DB) rewrapVolumes(tx *sql.Tx, to *masterkey.Sealer) error {
	return eachVolumeKey(tx, func(id, name string, sealed []byte) ([]byte, error) {
		n, err := s.readIncarnation(context.Background(), tx, id)
		if err != nil {
			return nil, err
		}
		return s.sealer.Rewrap(sealed, volumeLocation(id, name, n), to)
	})
}
