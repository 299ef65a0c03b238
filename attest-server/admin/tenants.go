package admin

import (
	"context"
	"net/http"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// own answers a tenant that names something of another exactly as if there
// were no such thing. It looks nothing up, so that the time it takes tells
// nothing either.
func own(t store.Token, kind, name string) error {
	if kbs.Owns(t.Tenant, name) {
		return nil
	}
	return refusal.New(kbs.CodeNotFound, "%s %s: %v", kind, name, store.ErrNotFound)
}

// ofWorkload lets h be called for the tenant's own workloads alone.
func ofWorkload(h Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request, t store.Token) error {
		if err := ownWorkload(t, r.PathValue("id")); err != nil {
			return err
		}
		return h(w, r, t)
	}
}

// ownWorkload is own for a workload, or one version of it.
func ownWorkload(t store.Token, name string) error {
	if kbs.Owns(t.Tenant, kbs.WorkloadOf(name)) {
		return nil
	}
	return own(t, "workload", name)
}

// mayRegister tells a tenant what its workloads' ids look like. It looks nothing
// up either.
func mayRegister(t store.Token, id string) error {
	if kbs.Owns(t.Tenant, id) {
		return nil
	}
	return refusal.New(kbs.CodeForbidden, "workload ids of tenant %s begin with %q: build with --workload-id %s.NAME", t.Tenant, t.Tenant+".", t.Tenant)
}

const maxPage = 100

// pageLimit is the request's limit parameter, at most maxPage.
func pageLimit(r *http.Request) (int, error) {
	q := r.URL.Query().Get("limit")
	if q == "" {
		return maxPage, nil
	}
	n, err := strconv.Atoi(q)
	if err != nil || n < 1 {
		return 0, refusal.New(kbs.CodeBadRequest, "limit %q, expected a number from 1", q)
	}
	return min(n, maxPage), nil
}

type workloadReader interface {
	Workload(ctx context.Context, id string) (store.Workload, error)
}

// mayDestroy lets a publisher end what he registered himself; an admin may end
// anything. A stolen token of one publisher must not cost the others their
// disks.
func mayDestroy(ctx context.Context, s workloadReader, t store.Token, id string) error {
	if t.Role == store.Admin {
		return nil
	}
	have, err := s.Workload(ctx, id)
	if err != nil {
		return workloadProblem(err)
	}
	if !store.SameOwner(have.RegisteredBy, actor(t)) {
		return refusal.New(kbs.CodeForbidden, "workload %s was registered by %s: only a token of that principal or an admin may do this", id, have.RegisteredBy)
	}
	return nil
}
