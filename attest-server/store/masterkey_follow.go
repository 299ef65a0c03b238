package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/secret"
)

// masterKeyFollower sees to it that everything is sealed under the MasterKey of
// the store, which another process may change. Which one that is shows the
// check value, which is sealed like all else.
type masterKeyFollower struct {
	sealer *masterkey.Sealer // nil without the MasterKey
	reload func() ([]secret.Bytes, error)
	rand   io.Reader
	check  atomic.Pointer[[]byte] // the check value under the MasterKey in use
	log    logIdentity            // as the check value says
}

// sealCheck is the check value of a store that has the audit log l.
func (f *masterKeyFollower) sealCheck(l logIdentity) ([]byte, error) {
	return f.sealer.Seal(secret.New(l.text()), valueLocation(checkName))
}

// holdsCheck says whether check is under the MasterKey of s, and which log it
// names.
func holdsCheck(s *masterkey.Sealer, check []byte) (l logIdentity, ok bool) {
	plain, err := s.OpenCurrent(check, valueLocation(checkName))
	if err != nil {
		return l, false
	}
	return parseIdentity(plain.Reveal())
}

// start finds a wrong MasterKey when the store is opened, not at the first
// release.
func (f *masterKeyFollower) start(ctx context.Context, db *database.DB) error {
	if f.sealer == nil {
		return nil
	}
	for before := []byte(nil); ; {
		check, err := readMeta(db.QueryRowContext(ctx, selectMeta, checkName))
		if errors.Is(err, sql.ErrNoRows) {
			return errors.New("no master key check value: this is no complete store, run `attest-server init` on a new directory")
		}
		if err != nil {
			return err
		}
		if err = f.adopt(check); err == nil {
			return nil
		}
		// Nothing holds the store still here: a rotation may have gone on.
		if !errors.Is(err, ErrWrongMasterKey) || bytes.Equal(check, before) {
			return err
		}
		before = check
	}
}

// follow notices, at the start of each transaction, that another process has
// changed the MasterKey. Without that, this one would seal a secret under the
// old key, and nobody could ever open it.
func (f *masterKeyFollower) follow(tx *sql.Tx) error {
	if f.sealer == nil {
		return nil
	}
	check, err := readMeta(tx.QueryRow(selectMeta, checkName))
	if errors.Is(err, sql.ErrNoRows) || err == nil && f.follows(check) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.adopt(check)
}

// follows says whether the MasterKey in use is still the store's.
func (f *masterKeyFollower) follows(check []byte) bool {
	known := f.check.Load()
	return f.sealer == nil || known != nil && bytes.Equal(check, *known)
}

// adopt seals with the MasterKey that check is under from now on:
// ErrWrongMasterKey if it is not to be had.
func (f *masterKeyFollower) adopt(check []byte) error {
	if l, ok := holdsCheck(f.sealer, check); ok {
		f.log = l
		f.check.Store(&check)
		return nil
	}
	if f.reload == nil {
		return ErrWrongMasterKey
	}
	keys, err := f.reload()
	defer func() {
		for _, k := range keys {
			k.Wipe()
		}
	}()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongMasterKey, err)
	}
	for _, k := range keys {
		other, err := masterkey.NewSealer(k, f.rand)
		if err != nil {
			return err
		}
		if l, ok := holdsCheck(other, check); ok {
			f.log = l
			f.sealer.Follow(other)
			f.check.Store(&check)
			return nil
		}
	}
	return ErrWrongMasterKey
}
