package admin

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// ApprovalStore is what approvals need of a store. Errors are those of package
// store: ErrNotFound, *QuotaError.
type ApprovalStore interface {
	Approve(ctx context.Context, tenant string, a kbs.Approval, actor string) error
	Withdraw(ctx context.Context, tenant string, a kbs.Approval, actor string) error
	Approvals(ctx context.Context, tenant string) (kbs.ApprovalList, error)
}

// Approvals are tenants' consents to releases.
type Approvals struct {
	Store ApprovalStore
	Log   *slog.Logger
}

// change gives or withdraws an approval of the token's tenant.
func (s *Approvals) change(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var a kbs.Approval
	if err := answer.ReadJSON(w, r, kbs.MaxAuthBody, &a); err != nil {
		return err
	}
	switch {
	case t.Tenant == "":
		return refusal.New(kbs.CodeForbidden, "approvals are a tenant's, and token %s is the operator's", t.ID)
	case len(a.Name) == 0 || len(a.Name) > 256 || strings.ContainsRune(a.Name, 0) || !kbs.ValidWorkloadID(a.WorkloadID) || a.RegistrationDigest.IsZero():
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

func (s *Approvals) list(w http.ResponseWriter, r *http.Request, t store.Token) error {
	list, err := s.Store.Approvals(r.Context(), t.Tenant)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}
