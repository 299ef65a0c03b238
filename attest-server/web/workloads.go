package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// registered is a workload as a row of a list.
type registered struct {
	kbs.WorkloadSummary
	State state
}

func (p *Page) workloads(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Workloads", "/ui/workloads"
	f := filterOf(r, filter{Path: v.Here, Hint: "workload, state, TEE or image"})
	read := func(after string, limit int) ([]registered, error) {
		list, err := p.Store.Workloads(r.Context(), v.Tenant, after, limit)
		return each(list.Workloads, func(w kbs.WorkloadSummary) registered { return registered{w, p.stateOf(w.RevokedAt, w.EndsAt)} }), err
	}
	rows, next, more, err := scan(field(r, "after"), read, func(x registered) string { return x.WorkloadID },
		func(x registered) bool { return f.has(x.WorkloadID, x.State.Text, string(x.TEE), x.Image) })
	if err != nil {
		return err
	}
	l := listing[registered]{Filter: f, Rows: rows}
	if more {
		l.Next = f.from(url.Values{"after": {next}})
	}
	v.Data = l
	p.show(w, r, http.StatusOK, "workloads", v)
	return nil
}

// consent is a tenant whose approval a release needs.
type consent struct {
	Tenant string
	Given  bool
}

func (p *Page) workload(w http.ResponseWriter, r *http.Request, v view) error {
	id := r.PathValue("id")
	v.Title, v.Here = "Workload "+id, "/ui/workloads"
	if !kbs.Owns(v.Tenant, kbs.WorkloadOf(id)) {
		return fmt.Errorf("workload %s: %w", id, store.ErrNotFound)
	}
	have, err := p.Store.Workload(r.Context(), id)
	if err != nil {
		return err
	}
	sessions, err := p.Store.Sessions(r.Context(), store.SessionQuery{WorkloadID: kbs.WorkloadOf(id)}, 20)
	if err != nil {
		return err
	}
	consents, err := p.consents(r, have)
	if err != nil {
		return err
	}
	v.Data = struct {
		store.Workload
		State    state
		Rules    []fact
		Limits   []fact
		Consents []consent
		Sessions []line
	}{have, p.stateOf(have.RevokedAt, have.EndsAt), strictness(have.Registration.ReferenceValues), limits(have.Registration.Release), consents, each(sessions, lineOf)}
	p.show(w, r, http.StatusOK, "workload", v)
	return nil
}

// consents is who must approve the release of w's DiskKey, and who has.
func (p *Page) consents(r *http.Request, w store.Workload) (all []consent, err error) {
	if w.Registration.Release == nil {
		return nil, nil
	}
	id := kbs.WorkloadOf(w.Registration.WorkloadID)
	a := kbs.Approval{Name: kbs.ReleaseName(id), WorkloadID: id, RegistrationDigest: w.Digest}
	missing, err := p.Store.Missing(r.Context(), w.Registration.Release.Approvals, a)
	for _, tenant := range w.Registration.Release.Approvals {
		all = append(all, consent{tenant, !slices.Contains(missing, tenant)})
	}
	return all, err
}

// maxApprovals bounds the approvals that are shown at once.
const maxApprovals = 200

// approvals is what tenants have approved, and when.
func (p *Page) approvals(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Approvals", "/ui/approvals"
	f := filterOf(r, filter{Path: v.Here})
	given, err := p.Store.Given(r.Context(), v.Tenant, f.Workload, maxApprovals+1)
	if err != nil {
		return err
	}
	v.Data = struct {
		Filter filter
		Rows   []store.Given
		More   bool
		Most   int
	}{f, given[:min(len(given), maxApprovals)], len(given) > maxApprovals, maxApprovals}
	p.show(w, r, http.StatusOK, "approvals", v)
	return nil
}
