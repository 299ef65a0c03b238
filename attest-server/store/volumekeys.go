package store

import (
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
func (c *core) volumeKeys(tx *sql.Tx, workload, name string, of incarnation, sealed []byte, rekey bool, fresh VolumeKey) (key, next []byte, err error) {
	both, err := c.openVolumeKeys(workload, name, of, sealed)
	if err != nil {
		return nil, nil, err
	}
	if !rekey || !fresh.Rekeys {
		if key = both[:kbs.VolumeKeyBytes]; len(both) > len(key) {
			err = c.sealVolumeKeys(tx, workload, name, of, key)
		}
		return key, nil, err
	}
	if fresh.Key.Len() != kbs.VolumeKeyBytes {
		return nil, nil, fmt.Errorf("volume key of %d bytes, expected %d", fresh.Key.Len(), kbs.VolumeKeyBytes)
	}
	both = append(both[:kbs.VolumeKeyBytes:kbs.VolumeKeyBytes], fresh.Key.Reveal()...)
	return both[:kbs.VolumeKeyBytes], both[kbs.VolumeKeyBytes:], c.sealVolumeKeys(tx, workload, name, of, both)
}

// openVolumeKeys is the key, and behind it what may take its place.
func (c *core) openVolumeKeys(workload, name string, of incarnation, sealed []byte) ([]byte, error) {
	k, err := c.sealer.Open(sealed, volumeLocation(workload, name, of))
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

func (c *core) sealVolumeKeys(tx *sql.Tx, workload, name string, of incarnation, keys []byte) error {
	k := secret.New(append([]byte(nil), keys...))
	defer k.Wipe()
	sealed, err := c.sealer.Seal(k, volumeLocation(workload, name, of))
	if err != nil {
		return err
	}
	_, err = tx.Exec("UPDATE volumes SET sealed = ? WHERE workload = ? AND name = ?", sealed, workload, name)
	return err
}
