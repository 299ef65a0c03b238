// Package admin is what owners use: tokens and roles, workloads, rotations,
// resources, approvals, policies and records, each over the few methods that it
// needs of a store.
package admin

import (
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// Store is all that owners' requests need of a store.
type Store interface {
	TokenStore
	WorkloadStore
	RotationStore
	ResourceStore
	ApprovalStore
	TenantPolicyStore
	RecordStore
}

// API answers owners, whom its Gate admits. All fields are needed.
type API struct {
	*Gate
	Workloads *Workloads
	Rotations *Rotations
	Resources *Resources
	Approvals *Approvals
	Policies  *TenantPolicies
	Records   *Records
	Metrics   http.Handler
}

// Routes registers everything but the paths that guests use as well.
func (a *API) Routes(mux *answer.Router, answers answer.Responder) {
	for pattern, x := range map[string]struct {
		roles []store.Role
		h     Handler
	}{
		"GET /v1/workloads":                        {Reading, a.Workloads.list},
		"GET /v1/workloads/{id}":                   {Reading, ofWorkload(a.Workloads.get)},
		"PUT /v1/workloads/{id}":                   {Publishing, a.Workloads.put},
		"DELETE /v1/workloads/{id}":                {Publishing, ofWorkload(a.Workloads.remove)},
		"POST /v1/workloads/{id}/revoke":           {Publishing, ofWorkload(a.Workloads.revoke)},
		"POST /v1/workloads/{id}/rotate":           {Publishing, ofWorkload(a.Rotations.rotate)},
		"GET /v1/sessions/{number}":                {Reading, a.Records.getSession},
		"GET /v1/audit":                            {Reading, a.Records.getAudit},
		"GET /v1/audit/head":                       {Reading, a.Records.getAuditHead},
		"GET /v1/resources":                        {Reading, a.Resources.list},
		"PUT /v1/resources/{repo}/{type}/{tag}":    {Publishing, a.Resources.put},
		"DELETE /v1/resources/{repo}/{type}/{tag}": {Publishing, a.Resources.remove},
		"GET /v1/approvals":                        {Reading, a.Approvals.list},
		"PUT /v1/approvals":                        {Publishing, a.Approvals.change},
		"DELETE /v1/approvals":                     {Publishing, a.Approvals.change},
		"GET /v1/tenants/{tenant}/policy":          {Reading, a.Policies.get},
		"PUT /v1/tenants/{tenant}/policy":          {Governing, a.Policies.put},
		"DELETE /v1/tenants/{tenant}/policy":       {Governing, a.Policies.remove},
		"GET /metrics":                             {Auditing, a.getMetrics},
	} {
		mux.HandleFunc(pattern, answers.Handle(a.Admit(x.roles, x.h)))
	}
	mux.HandleFunc("GET /v1/jwks", answers.Handle(a.Records.JWKS))
}

// GetResource shows an owner a resource, on a path where guests get its value.
func (a *API) GetResource(w http.ResponseWriter, r *http.Request) error {
	return a.Admit(Reading, a.Resources.get)(w, r)
}

// getMetrics is for the operator: what it counts is of all tenants, and tells
// whoever watches it which rule whose guests fail, and when.
func (a *API) getMetrics(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if t.Tenant != "" {
		return refusal.New(kbs.CodeForbidden, "the metrics are the operator's, and token %s is a tenant's", t.ID)
	}
	a.Metrics.ServeHTTP(w, r)
	return nil
}
