package admin

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/store"
)

// RecordStore is what records are read from. The error for what is not there is
// store.ErrNotFound.
type RecordStore interface {
	Session(ctx context.Context, number string) (kbs.SessionRecord, error)
	// Sessions is at most limit records, the latest first.
	Sessions(ctx context.Context, q store.SessionQuery, limit int) ([]kbs.SessionRecord, error)
	// Evidence is what a denied guest showed.
	Evidence(ctx context.Context, number string) ([]byte, error)
	HasTenant(ctx context.Context, name string) (bool, error)
	// AuditPage is at most limit entries after a sequence number, oldest first:
	// a tenant's, or all if it is empty.
	AuditPage(ctx context.Context, tenant string, after int64, limit int) (kbs.AuditPage, error)
	// TenantAuditPage is a tenant's page after the one that had the cursor;
	// store.ErrBadCursor: none had.
	TenantAuditPage(ctx context.Context, tenant, cursor string, limit int) (kbs.AuditPage, error)
	AuditHead(ctx context.Context) (kbs.AuditHead, error)
	// Checkpoint signs the head of the log's tree as it is now.
	Checkpoint(ctx context.Context) (checkpoint.Signed, error)
}

// Records shows what happened: sessions, and the audit log.
type Records struct {
	Store RecordStore
	// Anchor has the checkpoint that witnesses have.
	Anchor release.Anchor
	// SigningKey, on P-256, signs attestation results. nil: none are signed.
	SigningKey *ecdsa.PrivateKey
}

func (s *Records) getSession(w http.ResponseWriter, r *http.Request, t store.Token) error {
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

// listSessions shows one more than a page to know whether there is another.
func (s *Records) listSessions(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	q := store.SessionQuery{Tenant: t.Tenant, WorkloadID: r.URL.Query().Get("workload")}
	if before := r.URL.Query().Get("before"); before != "" {
		ms, number, ok := strings.Cut(before, ".")
		at, err := strconv.ParseInt(ms, 10, 64)
		if !ok || err != nil || at <= 0 || len(number) > 64 {
			return refusal.New(kbs.CodeBadRequest, "before %.80q, expected the page before's next", before)
		}
		q.Before, q.BeforeNumber = time.UnixMilli(at), number
	}
	records, err := s.Store.Sessions(r.Context(), q, limit+1)
	if err != nil {
		return err
	}
	list := kbs.SessionList{Sessions: []kbs.SessionSummary{}}
	for i := range records[:min(limit, len(records))] {
		list.Sessions = append(list.Sessions, records[i].Summary())
	}
	if len(records) > limit {
		last := records[limit-1]
		list.Next = fmt.Sprintf("%d.%s", last.At.UnixMilli(), last.Session)
	}
	return answer.WriteJSON(w, http.StatusOK, list)
}

// getEvidence is for who owns the workload alone: what belongs to a tenant is not
// the operator's.
func (s *Records) getEvidence(w http.ResponseWriter, r *http.Request, t store.Token) error {
	number := r.PathValue("number")
	rec, err := s.Store.Session(r.Context(), number)
	if err != nil {
		return workloadProblem(err)
	}
	if !kbs.Owns(t.Tenant, rec.WorkloadID) {
		return workloadProblem(fmt.Errorf("session %s: %w", number, store.ErrNotFound))
	}
	if t.Tenant == "" {
		tenants, err := s.Store.HasTenant(r.Context(), kbs.TenantOf(rec.WorkloadID))
		if err != nil {
			return err
		}
		if tenants {
			return refusal.New(kbs.CodeForbidden, "the evidence is of a guest of tenant %s, whose tokens alone read it", kbs.TenantOf(rec.WorkloadID))
		}
	}
	b, err := s.Store.Evidence(r.Context(), number)
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, kbs.SessionEvidence{TEE: rec.Result.TEE, Evidence: b})
}

func (s *Records) getAudit(w http.ResponseWriter, r *http.Request, t store.Token) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	if t.Tenant != "" {
		return s.tenantAudit(w, r, t, limit)
	}
	var after int64
	if q := r.URL.Query().Get("after"); q != "" {
		if after, err = strconv.ParseInt(q, 10, 64); err != nil || after < 0 {
			return refusal.New(kbs.CodeBadRequest, "after %q, expected a sequence number", q)
		}
	}
	page, err := s.Store.AuditPage(r.Context(), "", after, limit)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, page)
}

func (s *Records) tenantAudit(w http.ResponseWriter, r *http.Request, t store.Token, limit int) error {
	q := r.URL.Query()
	if q.Has("after") || len(q.Get("cursor")) > 256 {
		return refusal.New(kbs.CodeBadRequest, "after or cursor: a tenant's pages follow one another by cursor, as the page before gave it")
	}
	page, err := s.Store.TenantAuditPage(r.Context(), t.Tenant, q.Get("cursor"), limit)
	if errors.Is(err, store.ErrBadCursor) {
		return refusal.New(kbs.CodeBadRequest, "%v", err)
	}
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, page)
}

// getAuditHead is for the operator: its sequence number counts what all
// tenants did.
func (s *Records) getAuditHead(w http.ResponseWriter, r *http.Request, t store.Token) error {
	if t.Tenant != "" {
		return refusal.New(kbs.CodeForbidden, "the audit head is the operator's, and token %s is a tenant's", t.ID)
	}
	h, err := s.Store.AuditHead(r.Context())
	if err != nil {
		return workloadProblem(err)
	}
	return answer.WriteJSON(w, http.StatusOK, h)
}

// getCheckpoint is for everybody who reads: guests are told the same.
func (s *Records) getCheckpoint(w http.ResponseWriter, r *http.Request, _ store.Token) error {
	if err := s.Anchor.Ready(); err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the audit log is not what its witnesses have seen, or they cannot say", Cause: err}
	}
	b := s.Anchor.Checkpoint()
	if b == nil {
		c, err := s.Store.Checkpoint(r.Context())
		if err != nil {
			return err
		}
		b = c.Note
	}
	return answer.WriteWhole(w, "text/plain; charset=utf-8", b)
}
