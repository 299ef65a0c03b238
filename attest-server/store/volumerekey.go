package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// VolumeKey is what a guest draws for a volume: its key, if it has none, or its
// next one, if the guest can change it and the owner asks for that.
type VolumeKey struct {
	Key    secret.Bytes
	Rekeys bool
}

// volumeKeys opens a volume's key. While its owner asks for another, that is the
// one of the guest that has opened it last, kept beside the first until the guest
// has encrypted all under it: what earlier guests began is nobody's.
func (s volumes) volumeKeys(tx *sql.Tx, workload, name string, of incarnation, v *volume, fresh VolumeKey) (key, next []byte, err error) {
	both, err := s.openVolumeKeys(workload, name, of, v)
	if err != nil {
		return nil, nil, err
	}
	if !v.rekey || !fresh.Rekeys {
		if key = both[:kbs.VolumeKeyBytes]; len(both) > len(key) {
			err = s.sealVolumeKeys(tx, workload, name, of, key)
		}
		return key, nil, err
	}
	if fresh.Key.Len() != kbs.VolumeKeyBytes {
		return nil, nil, fmt.Errorf("volume key of %d bytes, expected %d", fresh.Key.Len(), kbs.VolumeKeyBytes)
	}
	both = append(both[:kbs.VolumeKeyBytes:kbs.VolumeKeyBytes], fresh.Key.Reveal()...)
	return both[:kbs.VolumeKeyBytes], both[kbs.VolumeKeyBytes:], s.sealVolumeKeys(tx, workload, name, of, both)
}

// openVolumeKeys is the key, and behind it what may take its place.
func (s volumes) openVolumeKeys(workload, name string, of incarnation, v *volume) ([]byte, error) {
	k, err := s.sealer.Open(v.sealed, volumeLocation(workload, name, of))
	if errors.Is(err, masterkey.ErrSealed) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err != nil {
		return nil, err
	}
	if k.Len() != kbs.VolumeKeyBytes && k.Len() != 2*kbs.VolumeKeyBytes {
		return nil, fmt.Errorf("%d bytes of keys: %w", k.Len(), ErrTampered)
	}
	return k.Reveal(), nil
}

func (s volumes) sealVolumeKeys(tx *sql.Tx, workload, name string, of incarnation, keys []byte) error {
	k := secret.New(append([]byte(nil), keys...))
	defer k.Wipe()
	sealed, err := s.sealer.Seal(k, volumeLocation(workload, name, of))
	if err != nil {
		return err
	}
	_, err = tx.Exec("UPDATE volumes SET sealed = ? WHERE workload = ? AND name = ?", sealed, workload, name)
	return err
}

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
		both, err := s.openVolumeKeys(workload, name, n, &v)
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
