package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// versionsKept is how many versions of a resource are kept, the newest.
const versionsKept = 5

// resources are further secrets of workloads.
type resources struct{ *core }

// PutResource gives a resource a new version, unless its newest is exactly
// this. What falls out of versionsKept is gone. ErrNotOwner: the newest is
// another principal's.
func (s resources) PutResource(ctx context.Context, id kbs.ResourceID, p kbs.ResourcePolicy, value secret.Bytes, by Caller) (kbs.ResourceAnswer, error) {
	policy, err := kbs.Canonical(p)
	if err != nil {
		return kbs.ResourceAnswer{}, fmt.Errorf("encoding policy: %w", err)
	}
	return s.putResource(ctx, id, value, by, func([]byte) ([]byte, error) { return policy, nil })
}

// PutResourceValue is PutResource that leaves the policy as it is. A new
// resource gets the policy first, or is ErrNotFound if first names nobody.
func (s resources) PutResourceValue(ctx context.Context, id kbs.ResourceID, first kbs.ResourcePolicy, value secret.Bytes, by Caller) (kbs.ResourceAnswer, error) {
	return s.putResource(ctx, id, value, by, func(have []byte) ([]byte, error) {
		if have == nil && len(first.Workloads)+len(first.Tenants) > 0 {
			return kbs.Canonical(first)
		}
		if have == nil {
			return nil, ErrNotFound
		}
		return have, nil
	})
}

// putResource stores value under the policy that choose returns. choose is
// given the policy in force, or nil.
func (s resources) putResource(ctx context.Context, id kbs.ResourceID, value secret.Bytes, by Caller, choose func([]byte) ([]byte, error)) (a kbs.ResourceAnswer, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		have, err := s.newest(tx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		there := err == nil
		policy, err := choose(have.policy)
		defer have.value.Wipe()
		switch {
		case err != nil:
			return err
		case there && by.may(have.by) != nil:
			return by.may(have.by)
		case there && string(have.policy) == string(policy) && have.value.Equal(value):
			a = kbs.ResourceAnswer{Version: have.version}
			return nil
		case !there:
			if err := checkQuota(tx, id.Repo, "resources"); err != nil {
				return err
			}
		}
		a = kbs.ResourceAnswer{Version: have.version + 1, Created: true}
		return s.insertResource(tx, id, a.Version, policy, value, by.Actor)
	})
	if err != nil {
		return kbs.ResourceAnswer{}, fmt.Errorf("storing resource %s: %w", id, err)
	}
	return a, nil
}

func (s resources) insertResource(tx *sql.Tx, id kbs.ResourceID, version int64, policy []byte, value secret.Bytes, actor string) error {
	sealed, err := s.sealer.Seal(value, resourceLocation(id, version, policy))
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO resources(repo, type, tag, version, value, size, policy, created_at, created_by) VALUES(?,?,?,?,?,?,?,?,?)`,
		id.Repo, id.Type, id.Tag, version, sealed, value.Len(), policy, unixMilli(s.clock()), actor)
	if err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM resources WHERE repo = ? AND type = ? AND tag = ? AND version <= ?", id.Repo, id.Type, id.Tag, version-versionsKept); err != nil {
		return err
	}
	return s.log.append(tx, actor, "resource.set", id.String(), fmt.Sprintf("version %d, policy %s", version, kbs.Sum384(policy)))
}

type resource struct {
	version int64
	policy  []byte
	value   secret.Bytes
	by      string
}

func (s resources) newest(tx *sql.Tx, id kbs.ResourceID) (r resource, err error) {
	var sealed []byte
	err = tx.QueryRow("SELECT version, policy, value, created_by FROM resources WHERE repo = ? AND type = ? AND tag = ? ORDER BY version DESC LIMIT 1",
		id.Repo, id.Type, id.Tag).Scan(&r.version, &r.policy, &sealed, &r.by)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("resource %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return r, err
	}
	r.value, err = s.sealer.Open(sealed, resourceLocation(id, r.version, r.policy))
	if errors.Is(err, masterkey.ErrSealed) {
		err = fmt.Errorf("opening resource %s: %w", id, ErrTampered)
	}
	return r, err
}

// ReleaseResource audits a release and only then returns the newest value. The
// workload must still be as it was appraised, and policy and approvals must
// allow it. A workload that the policy does not name gets ErrNotFound, as if
// there were no such resource.
func (s resources) ReleaseResource(ctx context.Context, id kbs.ResourceID, workload string, appraised kbs.Digest, session string) (value secret.Bytes, err error) {
	var refused error
	err = s.write(ctx, func(tx *sql.Tx) error {
		w, err := s.readReleasable(context.WithoutCancel(ctx), tx, workload, appraised, false)
		if err != nil {
			return err
		}
		r, denied, err := s.judge(tx, id, w, asked{workload, appraised, session})
		if refused = denied; err != nil || denied != nil {
			return err
		}
		value = r.value
		if err := noteGiven(tx, session, kbs.Given{Secrets: 1}); err != nil {
			return err
		}
		return s.log.append(tx, "session/"+session, "resource.release", id.String(), fmt.Sprintf("version %d to workload %s", r.version, workload))
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		value.Wipe()
		return secret.Bytes{}, fmt.Errorf("releasing resource %s: %w", id, err)
	}
	return value, nil
}

// asked is who wants a resource.
type asked struct {
	workload  string
	appraised kbs.Digest
	session   string
}

// judge returns the newest value of a resource, counted as released, or in
// refused why the workload does not get it, which is audited.
func (s resources) judge(tx *sql.Tx, id kbs.ResourceID, w releasable, by asked) (r resource, refused, err error) {
	// What is not there and what is not the workload's are audited alike:
	// the time that takes would tell one from the other.
	r, err = s.newest(tx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return r, nil, err
	}
	if refused = err; refused == nil {
		refused = allowed(tx, kbs.ResourceName(id), r.policy, by.workload, by.appraised)
	}
	if refused == nil {
		refused = machineDenied(tx, by.session)
	}
	if refused == nil {
		refused = new(counters).allow(w.reg.Release, s.clock(), true) // expiry
	}
	if refused != nil {
		r.value.Wipe()
		if !errors.Is(refused, ErrNotFound) && !errors.Is(refused, ErrNotApproved) && !errors.Is(refused, ErrLimit) && !errors.Is(refused, ErrRevoked) {
			return r, nil, refused
		}
		return r, refused, s.refuseResource(tx, id, by, refused)
	}
	_, err = tx.Exec("UPDATE resources SET releases = releases + 1, last_release = ? WHERE repo = ? AND type = ? AND tag = ? AND version = ?",
		unixMilli(s.clock()), id.Repo, id.Type, id.Tag, r.version)
	if err != nil {
		r.value.Wipe()
	}
	return r, nil, err
}

func (s resources) refuseResource(tx *sql.Tx, id kbs.ResourceID, by asked, why error) error {
	first, err := firstRefusal(tx, by.session, id, s.clock())
	if err != nil || !first {
		return err
	}
	return s.log.refuse(tx, refusal{session: by.session, action: "resource.refuse", object: id.String(), detail: "workload " + by.workload + ": " + why.Error(),
		workload: by.workload, why: whyRefused(why)})
}

// allowed applies a policy to a workload's registration.
func allowed(tx *sql.Tx, name string, policy []byte, workload string, registration kbs.Digest) error {
	p, err := policyOf(name, policy)
	if err != nil {
		return err
	}
	if !namesWorkload(p, workload) {
		return fmt.Errorf("policy of %s does not name the workload: %w", name, ErrNotFound)
	}
	return approved(tx, p.Approvals, name, workload, registration)
}

func policyOf(name string, policy []byte) (p kbs.ResourcePolicy, err error) {
	if err := kbs.UnmarshalCanonical(policy, &p); err != nil {
		return p, fmt.Errorf("reading policy of %s: %w: %w", name, ErrTampered, err)
	}
	return p, nil
}

func namesWorkload(p kbs.ResourcePolicy, workload string) bool {
	ofTenant := slices.ContainsFunc(p.Tenants, func(t string) bool { return t != "" && kbs.Owns(t, workload) })
	return ofTenant || slices.Contains(p.Workloads, workload)
}

// Resource is what is known of a resource but its values, or ErrNotFound.
func (s resources) Resource(ctx context.Context, id kbs.ResourceID) (kbs.ResourceMeta, error) {
	versions, err := list(ctx, s.db, scanVersion, `SELECT version, size, policy, created_at, created_by, releases, last_release FROM resources
		WHERE repo = ? AND type = ? AND tag = ? ORDER BY version DESC`, id.Repo, id.Type, id.Tag)
	if err != nil {
		return kbs.ResourceMeta{}, fmt.Errorf("reading resource %s: %w", id, err)
	}
	if len(versions) == 0 {
		return kbs.ResourceMeta{}, fmt.Errorf("resource %s: %w", id, ErrNotFound)
	}
	return kbs.ResourceMeta{Resource: id.String(), Versions: versions}, nil
}

func scanVersion(r row) (v kbs.ResourceVersion, err error) {
	var policy []byte
	var created int64
	var last *int64
	if err := r.Scan(&v.Version, &v.SizeBytes, &policy, &created, &v.CreatedBy, &v.Releases, &last); err != nil {
		return v, err
	}
	if err := kbs.UnmarshalCanonical(policy, &v.Policy); err != nil {
		return v, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	v.CreatedAt, v.LastRelease = fromMilli(created), fromNullMilli(last)
	return v, nil
}

// Resources is a page of at most limit names of the tenant's that follow
// after.
func (s resources) Resources(ctx context.Context, tenant, after string, limit int) (kbs.ResourceList, error) {
	names, err := list(ctx, s.db, scanName, `SELECT DISTINCT repo || '/' || type || '/' || tag AS name FROM resources
		WHERE repo || '/' || type || '/' || tag > ?1 AND (?2 = '' OR `+owned("repo", "?2")+`) ORDER BY name LIMIT ?3`, after, tenant, limit+1)
	if err != nil {
		return kbs.ResourceList{}, fmt.Errorf("listing resources: %w", err)
	}
	first, next := page(names, limit, func(name string) string { return name })
	return kbs.ResourceList{Resources: first, Next: next}, nil
}

func scanName(r row) (name string, err error) { return name, r.Scan(&name) }

// RemoveResource deletes every version. ErrNotOwner: the newest is another
// principal's.
func (s resources) RemoveResource(ctx context.Context, id kbs.ResourceID, by Caller) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		var owner string
		err := tx.QueryRow("SELECT created_by FROM resources WHERE repo = ? AND type = ? AND tag = ? ORDER BY version DESC LIMIT 1", id.Repo, id.Type, id.Tag).Scan(&owner)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrNotFound
		}
		if err == nil {
			err = by.may(owner)
		}
		if err != nil {
			return fmt.Errorf("resource %s: %w", id, err)
		}
		if err := changed(tx.Exec("DELETE FROM resources WHERE repo = ? AND type = ? AND tag = ?", id.Repo, id.Type, id.Tag)); err != nil {
			return fmt.Errorf("resource %s: %w", id, err)
		}
		return s.log.append(tx, by.Actor, "resource.remove", id.String(), "")
	})
}
