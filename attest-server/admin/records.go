package admin

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// RecordStore is what records are read from. The error for what is not there is
// store.ErrNotFound.
type RecordStore interface {
	Session(ctx context.Context, number string) (kbs.SessionRecord, error)
	// Audit calls each with the entries after a sequence number, oldest first.
	Audit(ctx context.Context, after int64, each func(kbs.AuditEntry) error) error
	AuditHead(ctx context.Context) (kbs.AuditHead, error)
}

// Records shows what happened: sessions, and the audit log.
type Records struct {
	Store RecordStore
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

var errPageFull = errors.New("page is full")

func (s *Records) getAudit(w http.ResponseWriter, r *http.Request, t store.Token) error {
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
