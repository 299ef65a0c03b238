package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// RekeyVolume has the next guest encrypt the volume under a key of its own.
func (s volumes) RekeyVolume(ctx context.Context, workload, name, actor string) (st kbs.VolumeStatus, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		if err := changed(tx.Exec("UPDATE volumes SET rekey = 1 WHERE workload = ? AND name = ?", workload, name)); err != nil {
			return fmt.Errorf("volume %s of workload %s: %w", name, workload, err)
		}
		if st, err = scanVolume(tx.QueryRow("SELECT "+volumeColumns+" FROM volumes WHERE workload = ? AND name = ?", workload, name)); err != nil {
			return err
		}
		return s.log.append(tx, actor, "volume.rekey", workload, "volume "+name)
	})
	return st, err
}

// VolumeRekeyed forgets the key from before: the guest that has opened the volume
// last has all of it under the next one. To say so again changes nothing.
func (s volumes) VolumeRekeyed(ctx context.Context, workload, name string, token secret.Bytes) error {
	err := s.writeHeld(ctx, workload, name, token, func(tx *sql.Tx, v volume) error {
		n, err := s.readIncarnation(context.WithoutCancel(ctx), tx, workload)
		if err != nil {
			return err
		}
		both, err := s.openVolumeKeys(workload, name, n, v.sealed)
		if err != nil {
			return err
		}
		defer clear(both)
		if len(both) == kbs.VolumeKeyBytes {
			if v.rekey {
				return fmt.Errorf("no guest was given another key: %w", ErrChanged)
			}
			return nil // the answer was lost
		}
		if err := s.sealVolumeKeys(tx, workload, name, n, both[kbs.VolumeKeyBytes:]); err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE volumes SET rekey = 0 WHERE workload = ? AND name = ?", workload, name); err != nil {
			return err
		}
		return s.log.append(tx, "session/"+v.session, "volume.rekeyed", workload, "volume "+name)
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}
