package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/tuple"
)

// Amendment puts a registration in the place of another of the same workload.
type Amendment struct {
	Workload string     // ID or ID@N
	From     kbs.Digest // of the registration that is there
	To       kbs.Registration
	Detail   string // for the audit log
}

// Amend changes registrations, each if it is still the one expected, with their
// DiskKeys, in one transaction: a kill leaves all or none. An element of refused
// is nil for one that was changed, or ErrNotFound, ErrRevoked, ErrChanged or a
// *DuplicateIdentityError: then that workload is as it was.
func (s workloads) Amend(ctx context.Context, list []Amendment, actor string) (refused []error, err error) {
	if s.sealer == nil {
		return nil, fmt.Errorf("sealing disk keys: %w", ErrLocked)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		refused = make([]error, len(list))
		for i, a := range list {
			var dup *DuplicateIdentityError
			err := s.amend(ctx, tx, a, actor)
			switch {
			case errors.Is(err, ErrNotFound), errors.Is(err, ErrRevoked), errors.Is(err, ErrChanged), errors.As(err, &dup):
				refused[i] = err
			case err != nil:
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changing registrations: %w", err)
	}
	return refused, nil
}

// amend refuses before it writes anything.
func (s workloads) amend(ctx context.Context, tx *sql.Tx, a Amendment, actor string) error {
	if kbs.WorkloadOf(a.Workload) != a.To.WorkloadID {
		return fmt.Errorf("registration of workload %s for %s", a.To.WorkloadID, a.Workload)
	}
	id, err := rowOf(ctx, tx, a.Workload)
	if err != nil {
		return err
	}
	w, err := readRotating(tx, id)
	switch {
	case err != nil:
		return err
	case kbs.Sum384(w.canonical) != a.From:
		return fmt.Errorf("workload %s: %w", id, ErrChanged)
	}
	canonical, err := kbs.Canonical(a.To)
	if err != nil {
		return err
	}
	identity, err := tuple.Of(a.To.ReferenceValues)
	if err != nil {
		return err
	}
	for _, m := range a.To.ReferenceValues.Measurements {
		if err := s.checkTuple(ctx, tx, m.LaunchDigest, identity, id); err != nil {
			return err
		}
	}
	key, err := s.reseal(w.sealed, diskKeyLocation(id, w.canonical), diskKeyLocation(id, canonical))
	if err != nil {
		return fmt.Errorf("disk key of workload %s: %w", id, err)
	}
	staged := w.staged
	if w.rotation != nil {
		if staged, err = s.reseal(w.staged, stagedLocation(id, *w.rotation, w.canonical), stagedLocation(id, *w.rotation, canonical)); err != nil {
			return fmt.Errorf("staged disk key of workload %s: %w", id, err)
		}
	}
	n, err := s.incarnate(ctx, tx, id)
	if err != nil {
		return err
	}
	of, err := s.sealIncarnation(n, id, canonical)
	if err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE workloads SET registration = ?, disk_key = ?, staged_key = ?, incarnation = ? WHERE id = ?", canonical, key, staged, of, id); err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM identities WHERE workload = ?", id); err != nil {
		return err
	}
	if err := s.claim(ctx, tx, a.To, id); err != nil {
		return err
	}
	return s.log.append(tx, actor, "workload.update", a.To.WorkloadID, fmt.Sprintf("%sregistration %s -> %s: %s", asideColon(id), a.From, kbs.Sum384(canonical), a.Detail))
}

// reseal moves a sealed secret.
func (s workloads) reseal(sealed, from, to []byte) ([]byte, error) {
	k, err := s.sealer.Open(sealed, from)
	if err != nil {
		return nil, fmt.Errorf("opening: %w: %w", ErrTampered, err)
	}
	defer k.Wipe()
	return s.sealer.Seal(k, to)
}
