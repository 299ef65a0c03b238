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

// releases hand out DiskKeys.
type releases struct{ *core }

// Release counts a release in the session, audits it, and only then returns
// the DiskKey. The workload must still be as it was appraised: neither
// revoked nor, under the same id, another one. A registration that allows no
// more releases is ErrLimit, a guest that has confirmed is ErrConfirmed; both
// are audited too.
func (s releases) Release(ctx context.Context, id string, appraised kbs.Digest, to Guest) (secret.Bytes, error) {
	return s.release(ctx, id, appraised, to, false)
}

// ReleaseStaged is Release for the DiskKey that is staged, ErrNotFound if none
// is.
func (s releases) ReleaseStaged(ctx context.Context, id string, appraised kbs.Digest, to Guest) (secret.Bytes, error) {
	return s.release(ctx, id, appraised, to, true)
}

func (s releases) release(ctx context.Context, id string, appraised kbs.Digest, to Guest, staged bool) (secret.Bytes, error) {
	var k secret.Bytes
	var refused error
	err := s.write(ctx, func(tx *sql.Tx) error {
		r, err := s.readReleasable(tx, id, appraised, staged)
		if err != nil {
			return err
		}
		if refused = unconfirmed(context.WithoutCancel(ctx), tx, to.ReportID); refused == nil && r.reg.Release != nil {
			limits := r.reg.Release
			refused = approved(tx, limits.Approvals, kbs.ReleaseName(id), id, appraised)
		}
		if refused == nil {
			refused = machineDenied(tx, to.Session)
		}
		if refused == nil {
			refused = countRelease(tx, id, to.Session, r.reg.Release, s.clock().UTC())
		}
		switch {
		case errors.Is(refused, ErrLimit), errors.Is(refused, ErrNotApproved), errors.Is(refused, ErrConfirmed), errors.Is(refused, ErrRevoked):
			return s.log.refuse(tx, refusal{session: to.Session, action: "key.refuse", object: id, detail: refused.Error(), workload: id, why: whyRefused(refused)})
		case refused != nil:
			return refused
		}
		// What cannot be opened is neither counted nor audited as released.
		if k, err = s.open(r, id); err != nil {
			return err
		}
		return s.log.append(tx, "session/"+to.Session, "key.release", id, r.detail())
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		k.Wipe()
		return secret.Bytes{}, fmt.Errorf("releasing disk key: %w", err)
	}
	return k, nil
}

func (s releases) open(r releasable, id string) (secret.Bytes, error) {
	k, err := s.sealer.Open(r.sealed, r.location)
	if errors.Is(err, masterkey.ErrSealed) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening disk key of workload %s: %w", id, err)
	}
	return k, nil
}

// releasable is a DiskKey that may be released as far as its registration is
// concerned.
type releasable struct {
	reg              kbs.Registration
	sealed, location []byte
	rotation         string // empty: the key in use
}

func (r *releasable) detail() string {
	if r.rotation != "" {
		return "rotation " + r.rotation
	}
	return ""
}

// readReleasable refuses a workload that is not as it was appraised.
func (c *core) readReleasable(tx *sql.Tx, id string, appraised kbs.Digest, staged bool) (r releasable, err error) {
	var canonical, next []byte
	var revoked *int64
	var rotation *string
	err = tx.QueryRow("SELECT registration, disk_key, staged_key, staged_rotation, revoked_at FROM workloads WHERE id = ?", id).
		Scan(&canonical, &r.sealed, &next, &rotation, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, fmt.Errorf("workload %s: %w", id, ErrNotFound)
	case err != nil:
		return r, err
	case revoked != nil:
		return r, fmt.Errorf("workload %s: %w", id, ErrRevoked)
	case kbs.Sum384(canonical) != appraised:
		return r, fmt.Errorf("workload %s: %w", id, ErrChanged)
	case staged && rotation == nil:
		return r, fmt.Errorf("staged disk key of workload %s: %w", id, ErrNotFound)
	}
	if r.reg, _, err = c.registrations.read(canonical); err != nil {
		return r, fmt.Errorf("reading workload %s: %w: %w", id, ErrTampered, err)
	}
	r.location = diskKeyLocation(id, canonical)
	if staged {
		r.sealed, r.location, r.rotation = next, stagedLocation(id, *rotation, canonical), *rotation
	}
	return r, nil
}
