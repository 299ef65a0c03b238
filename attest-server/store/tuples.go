package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/tuple"
)

// Many workloads may have one launch digest: a firmware's, a paravisor's, a
// guest image's. What is a workload's alone is the whole tuple. Table identities
// has the launch digest and tuple.Fixed of each; rows from before there was that
// have NULL there, of which a launch digest has one at most.

// ErrAmbiguous says that Evidence satisfies several registrations: none of them
// is released to. Registering refuses that.
var ErrAmbiguous = errors.New("several workloads have this identity")

// maxNearest bounds the registrations that are looked through for the one that
// refused Evidence misses least.
const maxNearest = 64

// Candidate is what looking for the workload of some Evidence found.
type Candidate struct {
	Workload
	// Whole says that the workload's whole tuple is the Evidence's. Else it is
	// the nearest of those with the launch digest, and gets nothing.
	Whole bool
	// Among is how many have the launch digest, counted up to maxNearest, if not
	// Whole.
	Among int
	// Shared says that these are of several tenants, or of one and the operator:
	// to which of them the guest belongs, nobody knows.
	Shared bool
}

// claimTuple makes a launch digest, with the rest of the tuple, the workload's
// own. Another workload's that one Evidence could satisfy as well is a
// *DuplicateIdentityError. The same digest twice within one workload (two
// profiles that measure alike) is no conflict.
func (s workloads) claimTuple(ctx context.Context, tx *sql.Tx, d kbs.LaunchDigest, t tuple.Tuple, id string) error {
	if err := s.checkTuple(ctx, tx, d, t, id); err != nil {
		return err
	}
	fixed := t.Fixed()
	_, err := tx.Exec("INSERT INTO identities(launch_digest, fixed, workload) VALUES(?, ?, ?) ON CONFLICT(launch_digest, workload) DO NOTHING", d[:], fixed[:], id)
	return err
}

// checkTuple is claimTuple without claiming.
func (s workloads) checkTuple(ctx context.Context, tx *sql.Tx, d kbs.LaunchDigest, t tuple.Tuple, id string) error {
	fixed := t.Fixed()
	near, err := s.candidates(ctx, tx, sameFixed, d[:], fixed[:])
	if err != nil {
		return err
	}
	for _, c := range near {
		if c.id != id && t.Overlaps(c.tuple) {
			return &DuplicateIdentityError{LaunchDigest: d, WorkloadID: c.id}
		}
	}
	return nil
}

// WorkloadOf is the one workload, even if it is revoked, whose whole tuple is
// what Evidence shows; else the nearest with that launch digest; ErrNotFound if
// none has it, ErrAmbiguous if it is the tuple of several.
func (s workloads) WorkloadOf(ctx context.Context, d kbs.LaunchDigest, shown tuple.Tuple) (Candidate, error) {
	if d.IsZero() {
		return Candidate{}, fmt.Errorf("workload with launch digest zero: %w", ErrNotFound)
	}
	fixed := shown.Fixed()
	found, err := s.candidates(ctx, s.db, sameFixed, d[:], fixed[:])
	if err != nil {
		return Candidate{}, err
	}
	whole := slices.DeleteFunc(found, func(c candidate) bool { return len(c.tuple.Differs(shown)) > 0 })
	if len(whole) > 1 {
		return Candidate{}, fmt.Errorf("launch digest %s: %w", d, ErrAmbiguous)
	}
	if len(whole) == 1 {
		w, err := s.Workload(ctx, whole[0].id)
		return Candidate{Workload: w, Whole: true}, err
	}
	return s.nearest(ctx, d, shown)
}

// nearest is the workload with the launch digest that misses Evidence in the
// fewest places.
func (s workloads) nearest(ctx context.Context, d kbs.LaunchDigest, shown tuple.Tuple) (c Candidate, err error) {
	all, err := s.candidates(ctx, s.db, sameDigest, d[:], maxNearest)
	if err != nil {
		return Candidate{}, err
	}
	if len(all) == 0 {
		return Candidate{}, fmt.Errorf("workload with launch digest %s: %w", d, ErrNotFound)
	}
	best := slices.MinFunc(all, func(a, b candidate) int { return len(a.tuple.Differs(shown)) - len(b.tuple.Differs(shown)) })
	c.Among = len(all)
	if c.Shared, err = s.shared(ctx, all); err != nil {
		return Candidate{}, err
	}
	c.Workload, err = s.Workload(ctx, best.id)
	return c, err
}

// candidate is a registration with a launch digest.
type candidate struct {
	id    string
	tuple tuple.Tuple
}

const (
	sameDigest = `SELECT w.id, w.registration FROM identities i JOIN workloads w ON w.id = i.workload
		WHERE i.launch_digest = ?1 ORDER BY w.id LIMIT ?2`
	sameFixed = `SELECT w.id, w.registration FROM identities i JOIN workloads w ON w.id = i.workload
		WHERE i.launch_digest = ?1 AND (i.fixed = ?2 OR i.fixed IS NULL) ORDER BY w.id`
)

func (s workloads) candidates(ctx context.Context, from querier, query string, args ...any) ([]candidate, error) {
	all, err := list(ctx, from, func(r row) (c candidate, err error) {
		var canonical []byte
		if err := r.Scan(&c.id, &canonical); err != nil {
			return c, err
		}
		reg, _, err := s.registrations.read(canonical)
		if err != nil {
			return c, fmt.Errorf("reading workload %s: %w: %w", c.id, ErrTampered, err)
		}
		c.tuple, err = tuple.Of(reg.ReferenceValues)
		return c, err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("looking for workloads by launch digest: %w", err)
	}
	return all, nil
}

// shared says whether the candidates have more than one owner.
func (s workloads) shared(ctx context.Context, all []candidate) (bool, error) {
	owners := map[string]bool{}
	for _, c := range all {
		name := kbs.TenantOf(kbs.WorkloadOf(c.id))
		there, err := tenants(s).HasTenant(ctx, name)
		if err != nil {
			return false, err
		}
		if !there {
			name = ""
		}
		owners[name] = true
	}
	return len(owners) > 1, nil
}
