package attestserver

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

const maxApprovers = 8

func checkApprovers(tenants []string) error {
	if len(tenants) > maxApprovers {
		return fmt.Errorf("approvals of %d tenants, at most %d allowed", len(tenants), maxApprovers)
	}
	for i, t := range tenants {
		if !kbs.ValidTenant(t) || slices.Contains(tenants[:i], t) {
			return fmt.Errorf("approvals: %q is no tenant's name, or named twice", t)
		}
	}
	return nil
}

// own answers a tenant that names something of another exactly as if there
// were no such thing. It asks nobody, so that the time tells nothing either.
func own(t store.Token, kind, name string) error {
	if kbs.Owns(t.Tenant, name) {
		return nil
	}
	return refusal.New(kbs.CodeNotFound, "%s %s: %v", kind, name, store.ErrNotFound)
}

// ofWorkload lets h be called for the tenant's own workloads alone.
func ofWorkload(h adminHandler) adminHandler {
	return func(w http.ResponseWriter, r *http.Request, t store.Token) error {
		if err := own(t, "workload", r.PathValue("id")); err != nil {
			return err
		}
		return h(w, r, t)
	}
}

// mayRegister tells a tenant what its workloads' ids look like. It asks
// nobody either.
func mayRegister(t store.Token, id string) error {
	if kbs.Owns(t.Tenant, id) {
		return nil
	}
	return refusal.New(kbs.CodeForbidden, "workload ids of tenant %s begin with %q: build with --workload-id %s.NAME", t.Tenant, t.Tenant+".", t.Tenant)
}
