package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Shared is what servers behind one address have in common, so that any of
// them can finish a session that another began.
type Shared struct {
	// Secret is what keys of sessions are derived from, the same for all.
	Secret secret.Bytes
	Store  Store
}

// Store is what such servers need of their store. Errors are those of
// package store: ErrNotFound, ErrUsed, ErrUnavailable.
type Store interface {
	// UseSession succeeds once for each id, on all servers together.
	UseSession(ctx context.Context, id string, until time.Time) error
	GrantSession(ctx context.Context, id string, sealed []byte, until time.Time) error
	// SessionGrant is nil for a session that was used and not granted.
	SessionGrant(ctx context.Context, id string) (sealed []byte, err error)
	SpendSession(ctx context.Context, id string, resource bool, of int) (left int, err error)
	PurgeSessions(ctx context.Context, expired time.Time, limit int) (granted, marks int, err error)
}

const (
	// maxSkew is how far ahead the clock of the server that opened a session
	// may be of ours.
	maxSkew = 10 * time.Second
	// markGrace is how much longer than its nonce a mark is kept, so that a
	// server whose clock is behind still finds it. Later the store itself
	// refuses the nonce: TestForgottenNonceStaysUsed.
	markGrace = 2 * maxSkew
	// purgeEvery is how often a server forgets old marks and counts the rest.
	// In between the table may grow by what comes in.
	purgeEvery = 5 * time.Second
)

// shared keeps its table in the database. What was granted lies there
// sealed: who can write to it may forget sessions and bring back ones of the
// last minute, but not put a key of his own in place of a guest's.
type shared struct {
	*Bearers
	store Store
	log   *slog.Logger
	max   int

	purged         atomic.Int64 // Duration since start
	granted, marks atomic.Int64 // about
}

// Size implements Table.
func (t *shared) Size() (granted, marks int) {
	return int(t.granted.Load()), int(t.marks.Load())
}

func (t *shared) at(since time.Duration) time.Time { return t.start.Add(since) }

// Use implements Table.
func (t *shared) Use(ctx context.Context, s *Session) error {
	now := t.now()
	if now < s.issued-maxSkew || now-s.issued >= t.life {
		return ErrExpired
	}
	t.purge(ctx, now)
	if t.marks.Load() >= int64(marksPerGrant*t.max) {
		return ErrFull
	}
	err := t.store.UseSession(ctx, s.ID.String(), t.at(s.issued+t.life+markGrace))
	if errors.Is(err, store.ErrUsed) {
		return ErrExpired
	}
	if err == nil {
		t.marks.Add(1)
	}
	return err
}

// purge runs at most once in purgeEvery.
func (t *shared) purge(ctx context.Context, now time.Duration) {
	last := t.purged.Load()
	if now-time.Duration(last) < purgeEvery || !t.purged.CompareAndSwap(last, int64(now)) {
		return
	}
	granted, marks, err := t.store.PurgeSessions(context.WithoutCancel(ctx), t.at(now), marksPerGrant*t.max+1)
	if err != nil {
		t.log.Warn("old sessions were not forgotten", "error", err)
		return
	}
	t.granted.Store(int64(granted))
	t.marks.Store(int64(marks))
}

// Grant implements Table.
func (t *shared) Grant(ctx context.Context, s *Session, g Grant) error {
	if t.granted.Load() >= int64(t.max) {
		return ErrFull
	}
	g.until = t.now() + t.life
	plain, err := encodeGrant(g)
	if err != nil {
		return err
	}
	err = t.store.GrantSession(ctx, s.ID.String(), t.seal(grantOf(s), plain), t.at(g.until+markGrace))
	if err == nil {
		t.granted.Add(1)
	}
	return err
}

// grantOf is the associated data of a session's grant: no dialect's name.
func grantOf(s *Session) Dialect { return Dialect("grant of session " + s.ID.String()) }

// Take implements Table.
func (t *shared) Take(ctx context.Context, s *Session, c Claim) (Grant, error) {
	g, err := t.Granted(ctx, s, c)
	if err != nil {
		return Grant{}, err
	}
	left := g.left(c)
	*left, err = t.store.SpendSession(ctx, s.ID.String(), c.Resource, *left)
	if errors.Is(err, store.ErrUsed) {
		err = ErrExpired
	}
	return g, err
}

// Granted implements Table.
func (t *shared) Granted(ctx context.Context, s *Session, c Claim) (Grant, error) {
	g, err := t.grantedTo(ctx, s)
	switch {
	case err != nil:
		return Grant{}, err
	case !g.covers(s, c):
		return Grant{}, ErrOther
	}
	return g, nil
}

// grantedTo is what s was granted, as long as that is good.
func (t *shared) grantedTo(ctx context.Context, s *Session) (g Grant, err error) {
	sealed, err := t.store.SessionGrant(ctx, s.ID.String())
	now := t.now()
	switch {
	case errors.Is(err, store.ErrNotFound) && now-s.issued >= t.life:
		return g, ErrExpired
	case errors.Is(err, store.ErrNotFound):
		return g, ErrNotAttested
	case err != nil:
		return g, err
	case sealed == nil:
		return g, ErrDenied
	}
	n := t.aead.NonceSize()
	if len(sealed) < n {
		return g, fmt.Errorf("grant of session %s: %w", s.ID, store.ErrTampered)
	}
	plain, err := t.aead.Open(nil, sealed[:n], sealed[n:], []byte(grantOf(s)))
	if err != nil {
		return g, fmt.Errorf("grant of session %s: %w", s.ID, store.ErrTampered)
	}
	if g, err = decodeGrant(plain); err != nil {
		return g, fmt.Errorf("grant of session %s: %w", s.ID, err)
	}
	if now >= g.until {
		return g, ErrExpired
	}
	return g, nil
}

// grantForm is a grant as it is sealed.
type grantForm struct {
	WorkloadID   string         `json:"workload_id"`
	Registration kbs.Digest     `json:"registration"`
	ReportData   kbs.ReportData `json:"report_data"`
	recipient.Form
	ReportID []byte        `json:"report_id,omitempty"`
	Until    time.Duration `json:"until"`
	Left     int           `json:"left"`
	Renewal  *RenewalKey   `json:"renewal,omitempty"`
}

func encodeGrant(g Grant) ([]byte, error) {
	form, err := recipient.Encode(g.Recipient)
	if err != nil {
		return nil, err
	}
	return json.Marshal(grantForm{g.WorkloadID, g.Registration, g.ReportData, form, g.ReportID, g.until, g.Left, g.Renewal})
}

func decodeGrant(b []byte) (Grant, error) {
	var f grantForm
	if err := kbs.UnmarshalStrict(b, &f); err != nil {
		return Grant{}, err
	}
	r, err := f.Decode()
	return Grant{
		WorkloadID: f.WorkloadID, Registration: f.Registration, ReportData: f.ReportData, Recipient: r, ReportID: f.ReportID,
		Left: f.Left, resources: maxReleasedResources, until: f.Until, Renewal: f.Renewal,
	}, err
}
