package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// Secret is one of several resources that a guest has asked for.
type Secret struct {
	Resource kbs.ResourceID
	Version  int64
	Value    secret.Bytes
	Refused  error // ErrNotFound or ErrNotApproved: there is no value
}

// WipeSecrets overwrites every value.
func WipeSecrets(all []Secret) {
	for i := range all {
		all[i].Value.Wipe()
	}
}

// ReleaseSecrets is ReleaseResource of several at once: one transaction, and one
// audit entry for each repository, in which its owner finds what was released of
// it. What the workload may not have is in the answer. ErrLimit and ErrRevoked,
// which are about the workload and not about a resource, release nothing, and
// neither does kbs.ErrTooLarge.
func (s resources) ReleaseSecrets(ctx context.Context, ids []kbs.ResourceID, workload string, appraised kbs.Digest, session string) (all []Secret, err error) {
	by := asked{workload, appraised, session}
	var refused error
	err = s.write(ctx, func(tx *sql.Tx) error {
		w, err := s.readProven(context.WithoutCancel(ctx), tx, workload, appraised)
		if err != nil {
			return err
		}
		WipeSecrets(all) // of a try before
		if all, refused, err = s.judgeAll(tx, ids, w, by); err != nil || refused != nil {
			return err
		}
		given := kbs.Given{}
		for _, v := range all {
			if v.Refused == nil {
				given.Secrets++
			}
		}
		return errors.Join(noteGiven(tx, session, given), s.auditSecrets(tx, all, by))
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		WipeSecrets(all)
		return nil, fmt.Errorf("releasing %d secrets: %w", len(ids), err)
	}
	return all, nil
}

func (s resources) judgeAll(tx *sql.Tx, ids []kbs.ResourceID, w releasable, by asked) (all []Secret, refused, err error) {
	var total int
	for _, id := range ids {
		r, denied, err := s.judge(tx, id, w, by)
		switch {
		case err != nil:
			return all, nil, err
		case errors.Is(denied, ErrNotFound), errors.Is(denied, ErrNotApproved):
			all = append(all, Secret{Resource: id, Refused: denied})
			continue
		case denied != nil:
			return all, denied, nil
		}
		all = append(all, Secret{Resource: id, Version: r.version, Value: r.value})
		if total += r.value.Len(); total > kbs.MaxSecretsBytes {
			return all, nil, fmt.Errorf("more than %d bytes together: %w", kbs.MaxSecretsBytes, kbs.ErrTooLarge)
		}
	}
	return all, nil, nil
}

func (s resources) auditSecrets(tx *sql.Tx, all []Secret, by asked) error {
	given := slices.DeleteFunc(slices.Clone(all), func(v Secret) bool { return v.Refused != nil })
	slices.SortStableFunc(given, func(a, b Secret) int { return cmp.Compare(a.Resource.Repo, b.Resource.Repo) })
	for len(given) > 0 {
		repo := given[0].Resource.Repo
		n := slices.IndexFunc(given, func(v Secret) bool { return v.Resource.Repo != repo })
		if n < 0 {
			n = len(given)
		}
		words := make([]string, n)
		for i, v := range given[:n] {
			words[i] = fmt.Sprintf("%s version %d", v.Resource, v.Version)
		}
		detail := fmt.Sprintf("%d to workload %s: %s", n, by.workload, strings.Join(words, ", "))
		if err := s.log.append(tx, "session/"+by.session, "secrets.release", repo, detail); err != nil {
			return err
		}
		given = given[n:]
	}
	return nil
}

// newestPolicies is every resource as it is now.
const newestPolicies = `SELECT repo, type, tag, version, size, policy FROM resources AS r WHERE version =
	(SELECT max(version) FROM resources WHERE repo = r.repo AND type = r.type AND tag = r.tag) ORDER BY repo, type, tag`

type resourceRule struct {
	id            kbs.ResourceID
	version, size int64
	policy        []byte
}

func scanRule(r row) (v resourceRule, err error) {
	return v, r.Scan(&v.id.Repo, &v.id.Type, &v.id.Tag, &v.version, &v.size, &v.policy)
}

// WorkloadSecrets is every resource whose policy names the workload, with the
// approvals that the newest registration still lacks.
func (s resources) WorkloadSecrets(ctx context.Context, workload string) ([]kbs.SecretStatus, error) {
	var registration []byte
	err := s.db.QueryRowContext(ctx, "SELECT registration FROM workloads WHERE id = ?", workload).Scan(&registration)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", workload, err)
	}
	rules, err := list(ctx, s.db, scanRule, newestPolicies)
	if err != nil {
		return nil, fmt.Errorf("reading resources: %w", err)
	}
	all := []kbs.SecretStatus{}
	for _, r := range rules {
		p, err := policyOf(kbs.ResourceName(r.id), r.policy)
		if err != nil {
			return nil, err
		}
		if !namesWorkload(p, workload) {
			continue
		}
		status := kbs.SecretStatus{Name: r.id.String(), Version: r.version, SizeBytes: r.size}
		if status.Missing, err = missingApprovals(ctx, s.db, p.Approvals, kbs.ResourceName(r.id), workload, kbs.Sum384(registration)); err != nil {
			return nil, err
		}
		all = append(all, status)
	}
	return all, nil
}
