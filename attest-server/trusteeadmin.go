package attestserver

import (
	"errors"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Of the trustee dialect's admin side there is what `kbs-client config
// set-resource` and `delete-resource` send, with a token of ours as
// --admin-token-file. Its policies are programs in Rego and its Reference
// Values the server's, not a workload's: here there is nothing that they could
// mean, and taking them without effect would be a lie about security.

func (s *Server) trusteeAdminRoutes(mux *answer.Router) {
	mux.HandleFunc("POST /kbs/v0/resource/{repo}/{type}/{tag}", s.trusteeAdmin(s.trusteeSetResource))
	mux.HandleFunc("DELETE /kbs/v0/resource/{repo}/{type}/{tag}", s.trusteeAdmin(s.trusteeDeleteResource))
	for path, instead := range map[string]string{
		"resource-policy":         "no Rego policies here: ccrun resource set --workload gives each resource its own",
		"attestation-policy":      "no Rego policies here: a workload's rules are in its registration, see ccrun register",
		"reference-value":         "Reference Values belong to a workload's registration: ccrun register",
		"reference-value/{id...}": "Reference Values belong to a workload's registration: ccrun workload show",
	} {
		mux.HandleFunc("/kbs/v0/"+path, s.answers.Respond(answer.ErrorInformation, func(http.ResponseWriter, *http.Request) error {
			return refusal.NewKind("PluginNotFound", kbs.CodeNotFound, "%s", instead)
		}))
	}
}

// trusteeAdmin is admin with the dialect's errors and its empty answer.
func (s *Server) trusteeAdmin(h adminHandler) http.HandlerFunc {
	return s.answers.Respond(answer.ErrorInformation, func(w http.ResponseWriter, r *http.Request) error {
		t, err := s.authorize(r, publishing, answer.Bearer(r))
		if err == nil {
			err = h(w, r, t)
		}
		if err != nil {
			return asAdminRefusal(err)
		}
		return answer.WriteWhole(w, "text/xml", nil)
	})
}

// asAdminRefusal gives refusals the kind that Trustee has for them.
func asAdminRefusal(err error) error {
	var e *refusal.Error
	if !errors.As(err, &e) || e.Kind != "" {
		return err
	}
	as := *e
	switch e.Code {
	case kbs.CodeUnauthorized, kbs.CodeForbidden:
		as.Kind = "AdminAuthAccess"
	case kbs.CodeNotFound, kbs.CodeQuota:
		as.Kind = "PluginInternalError"
	}
	return &as
}

// trusteeSetResource stores the body as it is. The dialect names no policy: a
// resource keeps its own, and a new one of a tenant is for the tenant's
// workloads. There is no default for the operator, because it could only be
// everybody.
func (s *Server) trusteeSetResource(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := resourceID(r)
	if err == nil {
		err = notReserved(id)
	}
	if err != nil {
		return err
	}
	if !kbs.Owns(t.Tenant, id.String()) {
		return refusal.New(kbs.CodeForbidden, "resource repositories of tenant %s are named %s or %s.NAME", t.Tenant, t.Tenant, t.Tenant)
	}
	body, err := answer.ReadBody(w, r, kbs.MaxResourceBytes)
	if err != nil {
		return err
	}
	value := secret.New(body)
	defer value.Wipe()
	if value.Len() == 0 {
		return refusal.New(kbs.CodeBadRequest, "the resource is empty")
	}
	var first kbs.ResourcePolicy
	if t.Tenant != "" {
		first.Tenants = []string{t.Tenant}
	}
	a, err := s.Store.PutResourceValue(r.Context(), id, first, value, actor(t))
	if errors.Is(err, store.ErrNotFound) {
		return refusal.New(kbs.CodeNotFound, "%s is new and nobody could get it: say who with `ccrun resource set %s --workload ID`, later values may come this way", id, id)
	}
	if err != nil {
		return registerProblem(err, t)
	}
	if a.Created {
		s.Log.Info("resource set", "resource", id.String(), "version", a.Version, "by", actor(t), "dialect", session.Trustee)
	}
	return nil
}

func (s *Server) trusteeDeleteResource(_ http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := ownResource(r, t)
	if err != nil {
		return err
	}
	if err := s.Store.RemoveResource(r.Context(), id, actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("resource removed", "resource", id.String(), "by", actor(t), "dialect", session.Trustee)
	return nil
}
