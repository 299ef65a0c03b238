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
	UpdateStore
	RotationStore
	ResourceStore
	ConfigStore
	VolumeStore
	ApprovalStore
	TenantPolicyStore
	RecordStore
	MachineStore
}

// API answers owners, whom its Gate admits. All fields are needed.
type API struct {
	*Gate
	Turns     *Turns
	Workloads *Workloads
	Updates   *Updates
	Rotations *Rotations
	Resources *Resources
	Configs   *Configs
	Volumes   *Volumes
	Approvals *Approvals
	Policies  *TenantPolicies
	Records   *Records
	Machines  *Machines
	Metrics   http.Handler
}

// Routes registers everything but the paths that guests use as well.
func (a *API) Routes(mux *answer.Router, answers answer.Responder) {
	reads := func(h Handler) Handler { return Turn(a.Turns.Reads, 0, h) }
	changes := func(limit int64, h Handler) Handler { return Turn(a.Turns.Changes, limit, h) }
	resources := func(limit int64, h Handler) Handler { return Turn(a.Turns.Resources, limit, h) }
	for pattern, x := range map[string]struct {
		roles []store.Role
		h     Handler
	}{
		"GET /v1/workloads":                        {Reading, reads(a.Workloads.list)},
		"GET /v1/workloads/{id}":                   {Reading, ofWorkload(reads(a.Workloads.get))},
		"PUT /v1/workloads/{id}":                   {Publishing, changes(kbs.MaxRegisterBody, a.Workloads.put)},
		"DELETE /v1/workloads/{id}":                {Publishing, ofWorkload(changes(0, a.Workloads.remove))},
		"POST /v1/workloads/{id}/revoke":           {Publishing, ofWorkload(changes(0, a.Workloads.revoke))},
		"POST /v1/workloads/{id}/rotate":           {Publishing, ofWorkload(Turn(a.Turns.Rotations, kbs.MaxRotateBody, a.Rotations.rotate))},
		"PUT /v1/workloads/{id}/config":            {Publishing, ofWorkload(resources(kbs.MaxConfigBody, a.Configs.put))},
		"DELETE /v1/workloads/{id}/config":         {Publishing, ofWorkload(resources(0, a.Configs.remove))},
		"GET /v1/workloads/{id}/secrets":           {Reading, ofWorkload(reads(a.Resources.ofWorkload))},
		"GET /v1/workloads/{id}/boot":              {Reading, ofWorkload(reads(a.Updates.getBoot))},
		"GET /v1/boots":                            {Reading, reads(a.Updates.listBoots)},
		"GET /v1/agents/{digest}":                  {Reading, resources(0, a.Updates.getAgent)},
		"PUT /v1/agents/{digest}":                  {Publishing, resources(kbs.MaxAgentBody, a.Updates.putAgent)},
		"POST /v1/measurements":                    {Publishing, changes(kbs.MaxUpdateBody, a.Updates.post)},
		"GET /v1/sessions":                         {Reading, reads(a.Records.listSessions)},
		"GET /v1/sessions/{number}":                {Reading, reads(a.Records.getSession)},
		"GET /v1/sessions/{number}/evidence":       {Reading, reads(a.Records.getEvidence)},
		"GET /v1/machines":                         {Auditing, reads(a.Machines.list)},
		"POST /v1/machines/{id}/incident":          {Governing, changes(0, a.Machines.declare)},
		"DELETE /v1/machines/{id}/incident":        {Governing, changes(0, a.Machines.lift)},
		"GET /v1/audit":                            {Reading, reads(a.Records.getAudit)},
		"GET /v1/audit/head":                       {Reading, reads(a.Records.getAuditHead)},
		"GET /v1/audit/checkpoint":                 {Reading, reads(a.Records.getCheckpoint)},
		"GET /v1/resources":                        {Reading, reads(a.Resources.list)},
		"PUT /v1/resources/{repo}/{type}/{tag}":    {Publishing, resources(kbs.MaxResourceBody, a.Resources.put)},
		"DELETE /v1/resources/{repo}/{type}/{tag}": {Publishing, resources(0, a.Resources.remove)},
		"GET /v1/approvals":                        {Reading, reads(a.Approvals.list)},
		"PUT /v1/approvals":                        {Publishing, changes(kbs.MaxAuthBody, a.Approvals.change)},
		"DELETE /v1/approvals":                     {Publishing, changes(kbs.MaxAuthBody, a.Approvals.change)},
		"GET /v1/tenants/{tenant}/policy":          {Reading, reads(a.Policies.get)},
		"PUT /v1/tenants/{tenant}/policy":          {Governing, changes(kbs.MaxPolicyBody, a.Policies.put)},
		"DELETE /v1/tenants/{tenant}/policy":       {Governing, changes(0, a.Policies.remove)},
		"GET /v1/whoami":                           {Reading, whoami},
		"GET /metrics":                             {Auditing, reads(a.getMetrics)},

		"GET /v1/workloads/{id}/volumes":                         {Reading, ofWorkload(reads(a.Volumes.list))},
		"DELETE /v1/workloads/{id}/volumes/{name}":               {Publishing, ofWorkload(changes(0, a.Volumes.forget))},
		"POST /v1/workloads/{id}/volumes/{name}/rekey":           {Publishing, ofWorkload(changes(0, a.Volumes.rekey))},
		"POST /v1/workloads/{id}/volumes/{name}/accept-rollback": {Publishing, ofWorkload(changes(kbs.MaxVolumeBody, a.Volumes.accept))},
	} {
		mux.HandleFunc(pattern, answers.Handle(a.Admit(x.roles, x.h)))
	}
	mux.HandleFunc("GET /v1/jwks", answers.Handle(a.Records.JWKS))
}

// GetResource shows an owner a resource, on a path where guests get its value.
func (a *API) GetResource(w http.ResponseWriter, r *http.Request) error {
	return a.Admit(Reading, Turn(a.Turns.Reads, 0, a.Resources.get))(w, r)
}

// GetConfig shows an owner what a workload is configured with, but for its
// values, on a path where guests get those.
func (a *API) GetConfig(w http.ResponseWriter, r *http.Request) error {
	return a.Admit(Reading, ofWorkload(Turn(a.Turns.Reads, 0, a.Configs.get)))(w, r)
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
