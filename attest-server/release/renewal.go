package release

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Ticket is what the session's guest gets secrets with after the session, if its
// Evidence binds a RenewalKey.
func (e *Engine) Ticket(ctx context.Context, guest Guest) (string, error) {
	sess := guest.Session
	g, err := e.Sessions.Granted(ctx, sess, session.Claim{WorkloadID: sess.WorkloadID})
	if err != nil {
		return "", sessionProblem(err, sess)
	}
	if g.Renewal == nil {
		return "", &refusal.Error{Code: kbs.CodeBadRequest, Detail: "the session's Evidence binds no renewal key", Session: sess.ID.String()}
	}
	return e.Renewals.Ticket(session.Renewal{Session: sess.ID, WorkloadID: g.WorkloadID, ReportData: g.ReportData, RenewalKey: *g.Renewal})
}

// Renew is a bearer for the ticket's guest, sealed: nobody else can read it.
func (e *Engine) Renew(ctx context.Context, ticket, peer string) ([]byte, error) {
	r, err := e.Renewals.ParseTicket(ticket)
	if err != nil {
		return nil, refusal.New(kbs.CodeSessionExpired, "no ticket of this server's")
	}
	guest := GuestOf(r, peer)
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	g, err := e.renewed(ctx, guest, r)
	if err != nil {
		return nil, err
	}
	bearer, err := e.Renewals.Bearer(r)
	if err != nil {
		return nil, err
	}
	return e.seal(g, kbs.RenewalName(g.WorkloadID), secret.New([]byte(bearer)))
}

// GuestOf is the guest that a ticket was given to.
func GuestOf(r session.Renewal, peer string) Guest {
	return Guest{Session: &session.Session{ID: r.Session, WorkloadID: r.WorkloadID, Dialect: session.Native}, Peer: peer}
}

// RenewedSecrets is Secrets for who has a bearer of Renew's.
func (e *Engine) RenewedSecrets(ctx context.Context, r session.Renewal, peer string, ids []kbs.ResourceID) ([]byte, error) {
	guest := GuestOf(r, peer)
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	g, err := e.renewed(ctx, guest, r)
	if err != nil {
		return nil, err
	}
	return e.secrets(ctx, guest, g, ids)
}

// RenewedConfig is Config for who has a bearer of Renew's.
func (e *Engine) RenewedConfig(ctx context.Context, r session.Renewal, peer string) ([]byte, error) {
	guest := GuestOf(r, peer)
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	g, err := e.renewed(ctx, guest, r)
	if err != nil {
		return nil, err
	}
	return e.config(ctx, guest, g)
}

// StillGranted is nil for a guest that would get secrets now.
func (e *Engine) StillGranted(ctx context.Context, r session.Renewal, peer string) error {
	guest := GuestOf(r, peer)
	if err := e.anchored(guest); err != nil {
		return err
	}
	if _, err := e.renewed(ctx, guest, r); err != nil {
		return err
	}
	w, err := e.Store.VersionWith(ctx, r.WorkloadID, r.Identity)
	if err != nil {
		return releaseProblem(err, guest.Session)
	}
	if w.RevokedAt != nil || w.EndsAt != nil && !e.Clock().Before(*w.EndsAt) {
		return &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload is revoked", Session: guest.Session.ID.String()}
	}
	return nil
}

// renewed is what a guest may get after its session: what one that attests now as
// it did would, but for the DiskKey, which no grant without releases left gets.
// Its registration may have been amended since; what it was measured as must
// still be in it.
func (e *Engine) renewed(ctx context.Context, guest Guest, r session.Renewal) (g session.Grant, err error) {
	w, err := e.Store.VersionWith(ctx, r.WorkloadID, r.Identity)
	if errors.Is(err, store.ErrNotFound) {
		return g, releaseProblem(err, guest.Session)
	}
	if err != nil {
		return g, err
	}
	if reg := w.Registration; r.Identity.IsZero() || reg.IdentityDigest != r.Identity || !measures(reg.ReferenceValues.Measurements, r.Launch, e.Clock()) {
		return g, &refusal.Error{Code: kbs.CodeAttestationDenied, Detail: "the workload is no longer registered as this guest was measured", Session: guest.Session.ID.String()}
	}
	to := recipient.ParseTEEKey(r.Key)
	if to == nil {
		return g, refusal.New(kbs.CodeBadRequest, "a renewal key that is not accepted")
	}
	return session.Grant{WorkloadID: r.WorkloadID, Registration: w.Digest, ReportData: r.ReportData, Recipient: to}, nil
}

func measures(all []kbs.Measurement, d kbs.LaunchDigest, now time.Time) bool {
	return !d.IsZero() && slices.ContainsFunc(all, func(m kbs.Measurement) bool {
		return m.LaunchDigest == d && (m.NotAfter == nil || now.Before(*m.NotAfter)) && (m.NotBefore == nil || !now.Before(*m.NotBefore))
	})
}
