package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

const migrationResources = `
	CREATE TABLE resources(
		repo TEXT NOT NULL,
		type TEXT NOT NULL,
		tag TEXT NOT NULL,
		version INTEGER NOT NULL,
		value BLOB NOT NULL,            -- sealed
		size INTEGER NOT NULL,
		policy BLOB NOT NULL,           -- RFC 8785
		created_at INTEGER NOT NULL,
		created_by TEXT NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		last_release INTEGER,
		PRIMARY KEY(repo, type, tag, version)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE approvals(
		tenant TEXT NOT NULL,
		name TEXT NOT NULL,
		workload TEXT NOT NULL,
		registration BLOB NOT NULL,
		at INTEGER NOT NULL,
		by TEXT NOT NULL,
		PRIMARY KEY(tenant, name, workload, registration)
	) STRICT, WITHOUT ROWID;`

// versionsKept is how many versions of a resource are kept, the newest.
const versionsKept = 5

// ErrNotApproved says that a tenant whose approval is needed has not given it.
var ErrNotApproved = errors.New("a tenant's approval is missing")

// PutResource gives a resource a new version, unless its newest is exactly
// this. What falls out of versionsKept is gone.
func (s *DB) PutResource(ctx context.Context, id kbs.ResourceID, p kbs.ResourcePolicy, value secret.Bytes, actor string) (kbs.ResourceAnswer, error) {
	policy, err := kbs.Canonical(p)
	if err != nil {
		return kbs.ResourceAnswer{}, fmt.Errorf("encoding policy: %w", err)
	}
	return s.putResource(ctx, id, value, actor, func([]byte) ([]byte, error) { return policy, nil })
}

// PutResourceValue is PutResource for who names no policy: it stays what it is.
// A resource that is new gets first, or is ErrNotFound if first is nobody's.
func (s *DB) PutResourceValue(ctx context.Context, id kbs.ResourceID, first kbs.ResourcePolicy, value secret.Bytes, actor string) (kbs.ResourceAnswer, error) {
	return s.putResource(ctx, id, value, actor, func(have []byte) ([]byte, error) {
		if have == nil && len(first.Workloads)+len(first.Tenants) > 0 {
			return kbs.Canonical(first)
		}
		if have == nil {
			return nil, ErrNotFound
		}
		return have, nil
	})
}

// putResource asks choose for the policy, given that in force or nil.
func (s *DB) putResource(ctx context.Context, id kbs.ResourceID, value secret.Bytes, actor string, choose func([]byte) ([]byte, error)) (a kbs.ResourceAnswer, err error) {
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
		case there && string(have.policy) == string(policy) && have.value.Equal(value):
			a = kbs.ResourceAnswer{Version: have.version}
			return nil
		case !there:
			if err := checkQuota(tx, id.Repo, "resources"); err != nil {
				return err
			}
		}
		a = kbs.ResourceAnswer{Version: have.version + 1, Created: true}
		return s.insertResource(tx, id, a.Version, policy, value, actor)
	})
	if err != nil {
		return kbs.ResourceAnswer{}, fmt.Errorf("storing resource %s: %w", id, err)
	}
	return a, nil
}

func (s *DB) insertResource(tx *sql.Tx, id kbs.ResourceID, version int64, policy []byte, value secret.Bytes, actor string) error {
	sealed, err := s.sealer.Seal(value, resourceLocation(id, version, policy))
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO resources(repo, type, tag, version, value, size, policy, created_at, created_by) VALUES(?,?,?,?,?,?,?,?,?)`,
		id.Repo, id.Type, id.Tag, version, sealed, value.Len(), policy, unixMilli(s.opts.Clock()), actor)
	if err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM resources WHERE repo = ? AND type = ? AND tag = ? AND version <= ?", id.Repo, id.Type, id.Tag, version-versionsKept); err != nil {
		return err
	}
	return s.audit(tx, actor, "resource.set", id.String(), fmt.Sprintf("version %d, policy %s", version, kbs.Sum384(policy)))
}

// resourceLocation ties a value to its name, version and policy: who edits a
// policy in the database makes the value unusable.
func resourceLocation(id kbs.ResourceID, version int64, policy []byte) []byte {
	return masterkey.Location("resources", "value", id.Repo, id.Type, id.Tag, strconv.FormatInt(version, 10), string(policy))
}

type resource struct {
	version int64
	policy  []byte
	value   secret.Bytes
}

func (s *DB) newest(tx *sql.Tx, id kbs.ResourceID) (r resource, err error) {
	var sealed []byte
	err = tx.QueryRow("SELECT version, policy, value FROM resources WHERE repo = ? AND type = ? AND tag = ? ORDER BY version DESC LIMIT 1",
		id.Repo, id.Type, id.Tag).Scan(&r.version, &r.policy, &sealed)
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
func (s *DB) ReleaseResource(ctx context.Context, id kbs.ResourceID, workload string, appraised kbs.Digest, session string) (value secret.Bytes, err error) {
	var refused error
	err = s.write(ctx, func(tx *sql.Tx) error {
		w, err := s.readReleasable(tx, workload, appraised, false)
		if err != nil {
			return err
		}
		r, err := s.newest(tx, id)
		if err != nil {
			return err
		}
		if refused = allowed(tx, kbs.ResourceName(id), r.policy, workload, appraised); refused == nil {
			refused = new(counters).allow(w.reg.Release, s.opts.Clock(), true) // expiry
		}
		if refused != nil {
			r.value.Wipe()
			if !errors.Is(refused, ErrNotFound) && !errors.Is(refused, ErrNotApproved) && !errors.Is(refused, ErrLimit) {
				return refused
			}
			return s.audit(tx, "session/"+session, "resource.refuse", id.String(), "workload "+workload+": "+refused.Error())
		}
		value = r.value
		_, err = tx.Exec("UPDATE resources SET releases = releases + 1, last_release = ? WHERE repo = ? AND type = ? AND tag = ? AND version = ?",
			unixMilli(s.opts.Clock()), id.Repo, id.Type, id.Tag, r.version)
		if err != nil {
			return err
		}
		return s.audit(tx, "session/"+session, "resource.release", id.String(), fmt.Sprintf("version %d to workload %s", r.version, workload))
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

// allowed applies a policy to a workload's registration.
func allowed(tx *sql.Tx, name string, policy []byte, workload string, registration kbs.Digest) error {
	var p kbs.ResourcePolicy
	if err := kbs.UnmarshalCanonical(policy, &p); err != nil {
		return fmt.Errorf("reading policy of %s: %w: %w", name, ErrTampered, err)
	}
	ofTenant := slices.ContainsFunc(p.Tenants, func(t string) bool { return t != "" && kbs.Owns(t, workload) })
	if !ofTenant && !slices.Contains(p.Workloads, workload) {
		return fmt.Errorf("policy of %s does not name the workload: %w", name, ErrNotFound)
	}
	return approved(tx, p.Approvals, name, workload, registration)
}

// approved says whether every one of tenants has approved that name be
// released to exactly this registration.
func approved(tx *sql.Tx, tenants []string, name, workload string, registration kbs.Digest) error {
	for _, t := range tenants {
		var yes bool
		err := tx.QueryRow("SELECT EXISTS(SELECT 1 FROM approvals WHERE tenant = ? AND name = ? AND workload = ? AND registration = ?)",
			t, name, workload, registration[:]).Scan(&yes)
		if err != nil {
			return err
		}
		if !yes {
			return fmt.Errorf("tenant %s has not approved %s for workload %s with registration %s: %w", t, name, workload, registration, ErrNotApproved)
		}
	}
	return nil
}

// Resource is what is known of a resource but its values, or ErrNotFound.
func (s *DB) Resource(ctx context.Context, id kbs.ResourceID) (kbs.ResourceMeta, error) {
	m := kbs.ResourceMeta{Resource: id.String()}
	rows, err := s.db.QueryContext(ctx, `SELECT version, size, policy, created_at, created_by, releases, last_release FROM resources
		WHERE repo = ? AND type = ? AND tag = ? ORDER BY version DESC`, id.Repo, id.Type, id.Tag)
	if err != nil {
		return m, fmt.Errorf("reading resource %s: %w", id, err)
	}
	defer rows.Close()
	for rows.Next() {
		var v kbs.ResourceVersion
		var policy []byte
		var created int64
		var last *int64
		if err := rows.Scan(&v.Version, &v.SizeBytes, &policy, &created, &v.CreatedBy, &v.Releases, &last); err != nil {
			return m, fmt.Errorf("reading resource %s: %w", id, err)
		}
		if err := kbs.UnmarshalCanonical(policy, &v.Policy); err != nil {
			return m, fmt.Errorf("reading resource %s: %w: %w", id, ErrTampered, err)
		}
		v.CreatedAt, v.LastRelease = fromMilli(created), fromNullMilli(last)
		m.Versions = append(m.Versions, v)
	}
	if err := rows.Err(); err != nil {
		return m, fmt.Errorf("reading resource %s: %w", id, err)
	}
	if len(m.Versions) == 0 {
		return m, fmt.Errorf("resource %s: %w", id, ErrNotFound)
	}
	return m, nil
}

// Resources is a page of at most limit names of the tenant's that follow
// after.
func (s *DB) Resources(ctx context.Context, tenant, after string, limit int) (kbs.ResourceList, error) {
	list := kbs.ResourceList{Resources: []string{}}
	rows, err := s.db.QueryContext(ctx, `SELECT DISTINCT repo || '/' || type || '/' || tag AS name FROM resources
		WHERE repo || '/' || type || '/' || tag > ?1 AND (?2 = '' OR repo = ?2 OR (repo >= ?2 || '.' AND repo < ?2 || '/')) ORDER BY name LIMIT ?3`, after, tenant, limit+1)
	if err != nil {
		return list, fmt.Errorf("listing resources: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return list, fmt.Errorf("listing resources: %w", err)
		}
		list.Resources = append(list.Resources, name)
	}
	if len(list.Resources) > limit {
		list.Resources = list.Resources[:limit]
		list.Next = list.Resources[limit-1]
	}
	return list, rows.Err()
}

// RemoveResource deletes every version.
func (s *DB) RemoveResource(ctx context.Context, id kbs.ResourceID, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		res, err := tx.Exec("DELETE FROM resources WHERE repo = ? AND type = ? AND tag = ?", id.Repo, id.Type, id.Tag)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("resource %s: %w", id, ErrNotFound))
		}
		return s.audit(tx, actor, "resource.remove", id.String(), "")
	})
}
