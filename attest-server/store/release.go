package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
		r, err := s.readReleasable(context.WithoutCancel(ctx), tx, id, appraised, staged)
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
			refused = countRelease(tx, r.row, to.Session, r.reg.Release, s.clock().UTC())
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
	row              string
	version          int64
	sealed, location []byte
	rotation         string // empty: the key in use
}

func (r *releasable) detail() string {
	var parts []string
	if r.version > 1 || r.row != r.reg.WorkloadID {
		parts = append(parts, fmt.Sprintf("version %d", r.version))
	}
	if r.rotation != "" {
		parts = append(parts, "rotation "+r.rotation)
	}
	return strings.Join(parts, ", ")
}

// stored is a version's row as releasing reads it.
type stored struct {
	row                     string
	canonical, sealed, next []byte
	rotation                *string
	version                 int64
	revoked, ends           *int64
}

func scanStored(r row) (v stored, err error) {
	return v, r.Scan(&v.row, &v.canonical, &v.sealed, &v.next, &v.rotation, &v.version, &v.revoked, &v.ends)
}

// readReleasable finds the version of a workload that was appraised. It refuses
// one that is not as it was then.
func (c *core) readReleasable(ctx context.Context, tx *sql.Tx, id string, appraised kbs.Digest, staged bool) (r releasable, err error) {
	all, err := list(ctx, tx, scanStored, "SELECT id, registration, disk_key, staged_key, staged_rotation, version, revoked_at, ends_at FROM workloads WHERE "+versionsOf("?1")+" ORDER BY version DESC", id)
	if err != nil {
		return r, err
	}
	if len(all) == 0 {
		return r, fmt.Errorf("workload %s: %w", id, ErrNotFound)
	}
	i := slices.IndexFunc(all, func(v stored) bool { return kbs.Sum384(v.canonical) == appraised })
	v := all[max(i, 0)]
	switch {
	case v.revoked != nil:
		return r, fmt.Errorf("workload %s: %w", v.row, ErrRevoked)
	case i < 0:
		return r, fmt.Errorf("workload %s: %w", id, ErrChanged)
	case v.ends != nil && unixMilli(c.clock()) >= *v.ends:
		return r, fmt.Errorf("workload %s ended %s: %w", v.row, fromMilli(*v.ends).Format(time.RFC3339), ErrRevoked)
	case staged && v.rotation == nil:
		return r, fmt.Errorf("staged disk key of workload %s: %w: %w", v.row, ErrNoRotation, ErrNotFound)
	}
	r.row, r.version, r.sealed, r.location = v.row, v.version, v.sealed, diskKeyLocation(id, v.canonical)
	if r.reg, _, err = c.registrations.read(v.canonical); err != nil {
		return r, fmt.Errorf("reading workload %s: %w: %w", v.row, ErrTampered, err)
	}
	if staged {
		r.sealed, r.location, r.rotation = v.next, stagedLocation(id, *v.rotation, v.canonical), *v.rotation
	}
	return r, nil
}
