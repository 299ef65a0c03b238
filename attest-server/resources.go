package attestserver

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

const maxPolicyEntries = 64

func resourceID(r *http.Request) (kbs.ResourceID, error) {
	id, err := kbs.ParseResourceID(r.PathValue("repo") + "/" + r.PathValue("type") + "/" + r.PathValue("tag"))
	if err != nil {
		return id, refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	return id, nil
}

// ownResource is the resource of the path if it is the token's.
func ownResource(r *http.Request, t store.Token) (kbs.ResourceID, error) {
	id, err := resourceID(r)
	if err != nil {
		return id, err
	}
	return id, own(t, "resource", id.String())
}

func (s *Server) putResource(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := resourceID(r)
	if err != nil {
		return err
	}
	if err := notReserved(id); err != nil {
		return err
	}
	if !kbs.Owns(t.Tenant, id.String()) {
		return refusal.New(kbs.CodeForbidden, "resource repositories of tenant %s are named %s or %s.NAME", t.Tenant, t.Tenant, t.Tenant)
	}
	var req kbs.ResourceRequest
	if err := answer.ReadJSON(w, r, kbs.MaxResourceBody, &req); err != nil {
		return err
	}
	value := secret.New(req.Value)
	defer value.Wipe()
	if err := checkResource(req.Policy, value); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	a, err := s.Store.PutResource(r.Context(), id, req.Policy, value, actor(t))
	if err != nil {
		return registerProblem(err, t)
	}
	status := http.StatusOK
	if a.Created {
		status = http.StatusCreated
		s.Log.Info("resource set", "resource", id.String(), "version", a.Version, "by", actor(t))
	}
	return answer.WriteJSON(w, status, a)
}

// notReserved refuses names that stand for workloads' disk keys where CoCo's
// clients ask.
func notReserved(id kbs.ResourceID) error {
	if id.Repo == diskKeyRepo && (id.Type == diskKeyType || id.Type == stagedKeyType) {
		return refusal.New(kbs.CodeBadRequest, "%s/%s/... stands for workloads' disk keys where CoCo clients ask: choose another name", id.Repo, id.Type)
	}
	return nil
}

// checkResource refuses what nobody could ever get.
func checkResource(p kbs.ResourcePolicy, value secret.Bytes) error {
	switch {
	case value.Len() == 0 || value.Len() > kbs.MaxResourceBytes:
		return fmt.Errorf("value of %d bytes, expected 1 to %d", value.Len(), kbs.MaxResourceBytes)
	case len(p.Workloads)+len(p.Tenants) == 0:
		return errors.New("policy names neither workloads nor tenants: nobody could ever get the resource")
	case len(p.Workloads) > maxPolicyEntries || len(p.Tenants) > maxPolicyEntries:
		return fmt.Errorf("policy of %d workloads and %d tenants, at most %d each", len(p.Workloads), len(p.Tenants), maxPolicyEntries)
	}
	for _, id := range p.Workloads {
		if !kbs.ValidWorkloadID(id) {
			return fmt.Errorf("policy: %q is no workload id", id)
		}
	}
	for _, t := range p.Tenants {
		if !kbs.ValidTenant(t) {
			return fmt.Errorf("policy: %q is no tenant's name", t)
		}
	}
	return checkApprovers(p.Approvals)
}

// tokenPrefix is how owners' tokens begin; a session's bearer begins with a
// GCM nonce, whose first three bytes are zero.
var tokenPrefix = []byte("ccrun_")

// getResource answers a guest's session with the value, sealed to its TEEKey,
// and an owner with everything else.
func (s *Server) getResource(w http.ResponseWriter, r *http.Request) error {
	b := answer.Bearer(r)
	if b.Len() > 0 && !bytes.HasPrefix(b.Reveal(), tokenPrefix) {
		return s.releaseResource(w, r)
	}
	t, err := s.authorize(r, reading, b)
	if err != nil {
		return err
	}
	id, err := ownResource(r, t)
	if err != nil {
		return err
	}
	m, err := s.Store.Resource(r.Context(), id)
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, m)
}

func (s *Server) deleteResource(w http.ResponseWriter, r *http.Request, t store.Token) error {
	id, err := ownResource(r, t)
	if err != nil {
		return err
	}
	if err := s.Store.RemoveResource(r.Context(), id, actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("resource removed", "resource", id.String(), "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) listResources(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	list, err := s.Store.Resources(r.Context(), t.Tenant, r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}

// changeApproval gives or withdraws an approval of the token's tenant.
func (s *Server) changeApproval(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var a kbs.Approval
	if err := answer.ReadJSON(w, r, kbs.MaxAuthBody, &a); err != nil {
		return err
	}
	switch {
	case t.Tenant == "":
		return refusal.New(kbs.CodeForbidden, "approvals are a tenant's, and token %s is the operator's", t.ID)
	case len(a.Name) == 0 || len(a.Name) > 256 || !kbs.ValidWorkloadID(a.WorkloadID) || a.RegistrationDigest.IsZero():
		return refusal.New(kbs.CodeBadRequest, "expected name, workload_id and registration_digest")
	}
	if r.Method == http.MethodDelete {
		if err := s.Store.Withdraw(r.Context(), t.Tenant, a, actor(t)); err != nil {
			return workloadProblem(err)
		}
	} else if err := s.Store.Approve(r.Context(), t.Tenant, a, actor(t)); err != nil {
		return registerProblem(err, t)
	}
	s.Log.Info("approval changed", "method", r.Method, "tenant", t.Tenant, "name", a.Name, "workload", a.WorkloadID, "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) listApprovals(w http.ResponseWriter, r *http.Request, t store.Token) error {
	list, err := s.Store.Approvals(r.Context(), t.Tenant)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}
