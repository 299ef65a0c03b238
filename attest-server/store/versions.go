package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// VersionWith is the version of the workload whose guests have that identity, or
// the newest if none has: the guest's rules then fail against that.
func (s workloads) VersionWith(ctx context.Context, id string, identity kbs.Digest) (Workload, error) {
	w, err := s.Workload(ctx, id)
	if err != nil || identity.IsZero() || w.Registration.IdentityDigest == identity || w.Version == 1 {
		return w, err
	}
	rows, err := list(ctx, s.db, func(r row) (name string, err error) { return name, r.Scan(&name) },
		"SELECT id FROM workloads WHERE "+versionsOf("?1")+" ORDER BY version DESC", id)
	if err != nil {
		return Workload{}, fmt.Errorf("reading versions of workload %s: %w", id, err)
	}
	for _, name := range rows {
		old, err := s.Workload(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil || old.Registration.IdentityDigest == identity {
			return old, err
		}
	}
	return w, nil
}

// Versions is every version of the workload that name is of, the newest first.
func (s workloads) Versions(ctx context.Context, name string) ([]kbs.Version, error) {
	all, err := list(ctx, s.db, func(r row) (v kbs.Version, err error) {
		var registered int64
		var revoked, ends, last *int64
		err = r.Scan(&v.Name, &v.Version, &v.Image, &registered, &revoked, &ends, &last)
		v.RegisteredAt, v.RevokedAt, v.EndsAt, v.LastRelease = fromMilli(registered), fromNullMilli(revoked), fromNullMilli(ends), fromNullMilli(last)
		return v, err
	}, "SELECT id, version, image, registered_at, revoked_at, ends_at, last_release FROM workloads WHERE "+versionsOf("?1")+" ORDER BY version DESC", kbs.WorkloadOf(name))
	if err != nil {
		return nil, fmt.Errorf("listing versions of workload %s: %w", name, err)
	}
	return all, nil
}

// Ended says whether nothing is released to w any more because a later version
// is there.
func (w *Workload) Ended(now time.Time) bool { return w.EndsAt != nil && !now.Before(*w.EndsAt) }
