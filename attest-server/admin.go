package attestserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

const maxPage = 100

// Who may call what. An admin may everything.
var (
	reading    = []store.Role{store.Admin, store.Publisher, store.Auditor}
	publishing = []store.Role{store.Admin, store.Publisher}
	auditing   = []store.Role{store.Admin, store.Auditor}
	governing  = []store.Role{store.Admin}
)

type adminHandler func(w http.ResponseWriter, r *http.Request, t store.Token) error

// actor is how the store and the log name a token's bearer.
func actor(t store.Token) string {
	if strings.HasPrefix(t.ID, clientActor) {
		return t.ID
	}
	return "token/" + t.ID
}

// admin lets h be called with a valid token of one of the roles.
func (s *Server) admin(roles []store.Role, h adminHandler) http.HandlerFunc {
	return s.answers.Handle(func(w http.ResponseWriter, r *http.Request) error {
		t, err := s.authorize(r, roles, answer.Bearer(r))
		if err != nil {
			return err
		}
		return h(w, r, t)
	})
}

// authorize is the token b, or without one what the client's certificate stands
// for, if it has one of the roles.
func (s *Server) authorize(r *http.Request, roles []store.Role, b secret.Bytes) (store.Token, error) {
	t, ok := store.Token{}, false
	if b.Len() == 0 {
		if t, ok = s.clientToken(r); !ok {
			return store.Token{}, refusal.New(kbs.CodeUnauthorized, "no token: send Authorization: Bearer TOKEN")
		}
	} else {
		var err error
		if t, err = s.authenticate(r, b); err != nil {
			return store.Token{}, err
		}
	}
	if err := s.limits.Token(t.ID, t.Tenant); err != nil {
		return store.Token{}, err
	}
	if !slices.Contains(roles, t.Role) {
		s.Log.Warn("admin request beyond its role", "method", r.Method, "path", r.URL.Path, "peer", answer.Peer(r), "token", t.ID, "role", t.Role)
		return store.Token{}, refusal.New(kbs.CodeForbidden, "token %s has role %s, which may not do this", t.ID, t.Role)
	}
	return t, nil
}

func (s *Server) authenticate(r *http.Request, b secret.Bytes) (store.Token, error) {
	t, err := s.Store.Authenticate(r.Context(), b)
	if errors.Is(err, store.ErrBadToken) {
		s.limits.BadToken(r)
		s.Log.Warn("admin request with a bad token", "method", r.Method, "path", r.URL.Path, "peer", answer.Peer(r))
		return store.Token{}, refusal.New(kbs.CodeUnauthorized, "%v", err)
	}
	return t, err
}

func (s *Server) putWorkload(w http.ResponseWriter, r *http.Request, t store.Token) error {
	var req kbs.RegisterRequest
	if err := answer.ReadJSON(w, r, kbs.MaxRegisterBody, &req); err != nil {
		return err
	}
	diskKey := secret.New(req.DiskKey)
	defer diskKey.Wipe()
	if id := r.PathValue("id"); req.Registration.WorkloadID != id {
		return refusal.New(kbs.CodeBadRequest, "registration of workload %q sent to the path of %q", req.Registration.WorkloadID, id)
	}
	if err := mayRegister(t, req.Registration.WorkloadID); err != nil {
		return err
	}
	if err := s.checkRegistration(req.Registration, diskKey); err != nil {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err := s.engine.Policies.CheckRegistration(r.Context(), req.Registration); err != nil {
		return err
	}
	created, err := s.Store.Register(r.Context(), req.Registration, diskKey, actor(t))
	if err != nil {
		return registerProblem(err, t)
	}
	have, err := s.Store.Workload(r.Context(), req.Registration.WorkloadID)
	if err != nil {
		return workloadProblem(err)
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		s.Log.Info("workload registered", "workload", req.Registration.WorkloadID, "by", actor(t))
	}
	return answer.WriteJSON(w, status, kbs.RegisterAnswer{Created: created, Status: have.WorkloadStatus})
}

// registerProblem names nobody else's workload to a tenant.
func registerProblem(err error, t store.Token) error {
	var quota *store.QuotaError
	if errors.As(err, &quota) {
		return &refusal.Error{Code: kbs.CodeQuota, Detail: quota.Error() + ": " + quota.Hint()}
	}
	var conflict *store.ConflictError
	var dup *store.DuplicateDigestError
	switch {
	case errors.As(err, &conflict):
		return &refusal.Error{Code: kbs.CodeConflict, Detail: conflict.Error() + ": " + conflict.Hint()}
	case errors.As(err, &dup) && !kbs.Owns(t.Tenant, dup.WorkloadID):
		return &refusal.Error{Code: kbs.CodeDuplicateDigest, Detail: "the launch digest belongs to another workload: " + dup.Hint()}
	case errors.As(err, &dup):
		return &refusal.Error{Code: kbs.CodeDuplicateDigest, Detail: dup.Error() + ": " + dup.Hint()}
	}
	return err
}

func workloadProblem(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Code: kbs.CodeNotFound, Detail: err.Error()}
	}
	return err
}

// checkRegistration refuses what could never be released, or too easily.
func (s *Server) checkRegistration(reg kbs.Registration, diskKey secret.Bytes) error {
	tee := reg.ReferenceValues.TEE
	switch {
	case reg.Version != 1:
		return fmt.Errorf("registration version %d, expected 1", reg.Version)
	case !kbs.ValidWorkloadID(reg.WorkloadID):
		return errors.New("workload_id: expected up to 128 letters, digits, '.', '_', '-'")
	case !s.speaksFor(reg.Type):
		return fmt.Errorf("type %q: this server speaks %v, so the workload could never attest", reg.Type, s.Dialects)
	case reg.Type == kbs.TypeNative && (reg.IdentityDigest.IsZero() || reg.FooterDigest.IsZero()):
		return errors.New("registration without identity_digest or footer_digest")
	case tee.Valid() && s.Verifiers[tee] == nil:
		return fmt.Errorf("this server has no verifier for tee %q: the workload could never attest", tee)
	case diskKey.Len() == 0 || diskKey.Len() > maxDiskKey:
		return fmt.Errorf("disk_key of %d bytes, expected 1 to %d", diskKey.Len(), maxDiskKey)
	case len(reg.Image) > 512:
		return fmt.Errorf("image of %d bytes, at most 512 allowed", len(reg.Image))
	case strings.ContainsRune(reg.Image, 0): // no text to PostgreSQL
		return errors.New("image with a NUL character")
	}
	if err := checkLimits(reg.Release, s.Clock()); err != nil {
		return err
	}
	if reg.Type != kbs.TypeNative {
		if err := checkForeign(reg, diskKey); err != nil {
			return err
		}
	}
	return verifier.CheckReferenceValues(reg.ReferenceValues)
}

// maxDiskKey leaves room for the HPKE tag in kbs.MaxSecretBytes.
const maxDiskKey = 4 << 10

func (s *Server) getWorkload(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	have, err := s.Store.Workload(r.Context(), r.PathValue("id"))
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, have.WorkloadStatus)
}

func (s *Server) listWorkloads(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	list, err := s.Store.Workloads(r.Context(), t.Tenant, r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}

func (s *Server) revokeWorkload(w http.ResponseWriter, r *http.Request, t store.Token) error {
	have, err := s.Store.Revoke(r.Context(), r.PathValue("id"), actor(t))
	if err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("workload revoked", "workload", r.PathValue("id"), "by", actor(t))
	return answer.WriteJSON(w, http.StatusOK, have.WorkloadStatus)
}

// mayDestroy lets a publisher end what he registered himself; an admin may end
// anything. A stolen token of one publisher must not cost the others their
// disks.
func (s *Server) mayDestroy(ctx context.Context, t store.Token, id string) error {
	if t.Role == store.Admin {
		return nil
	}
	have, err := s.Store.Workload(ctx, id)
	if err != nil {
		return workloadProblem(err)
	}
	if have.RegisteredBy != actor(t) {
		return refusal.New(kbs.CodeForbidden, "workload %s was registered with another token: only that one or an admin may do this", id)
	}
	return nil
}

// deleteWorkload lets a publisher remove what he registered himself, e.g.
// when a build fails after registering; an admin may remove anything.
func (s *Server) deleteWorkload(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if err := s.mayDestroy(r.Context(), t, r.PathValue("id")); err != nil {
		return err
	}
	if err := s.Store.Remove(r.Context(), r.PathValue("id"), actor(t)); err != nil {
		return workloadProblem(err)
	}
	s.Log.Info("workload removed", "workload", r.PathValue("id"), "by", actor(t))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) getSession(w http.ResponseWriter, r *http.Request, t store.Token) error {
	rec, err := s.Store.Session(r.Context(), r.PathValue("number"))
	if err == nil && !kbs.Owns(t.Tenant, rec.WorkloadID) {
		err = fmt.Errorf("session %s: %w", r.PathValue("number"), store.ErrNotFound)
	}
	if err != nil {
		return workloadProblem(err)
	}
	if wantsEAR(r) {
		return s.writeEAR(w, rec)
	}
	return answer.WriteJSON(w, http.StatusOK, rec)
}

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

var errPageFull = errors.New("page is full")

func (s *Server) getAudit(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	var after int64
	if q := r.URL.Query().Get("after"); q != "" {
		if after, err = strconv.ParseInt(q, 10, 64); err != nil || after < 0 {
			return refusal.New(kbs.CodeBadRequest, "after %q, expected a sequence number", q)
		}
	}
	page := kbs.AuditPage{Entries: []kbs.AuditEntry{}}
	err = s.Store.Audit(r.Context(), after, func(e kbs.AuditEntry) error {
		if !kbs.Owns(t.Tenant, e.Object) {
			return nil
		}
		if len(page.Entries) == limit {
			page.Next = page.Entries[limit-1].Sequence
			return errPageFull
		}
		page.Entries = append(page.Entries, e)
		return nil
	})
	if err != nil && !errors.Is(err, errPageFull) {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, page)
}

// getAuditHead is for the operator: its sequence number counts what all
// tenants did.
func (s *Server) getAuditHead(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if t.Tenant != "" {
		return refusal.New(kbs.CodeForbidden, "the audit head is the operator's, and token %s is a tenant's", t.ID)
	}
	h, err := s.Store.AuditHead(r.Context())
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, h)
}

// getMetrics is for the operator: what it counts is of all tenants, and tells
// who knows when to ask which rule another's guests fail.
func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if t.Tenant != "" {
		return refusal.New(kbs.CodeForbidden, "the metrics are the operator's, and token %s is a tenant's", t.ID)
	}
	s.Metrics.Handler().ServeHTTP(w, r)
	return nil
}
