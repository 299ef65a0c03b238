package attestserver

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
	Store  SessionStore
}

// SessionStore is what such servers need of their store. Errors are those of
// package store: ErrNotFound, ErrUsed, ErrUnavailable.
type SessionStore interface {
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

// sharedSessions keeps its table in the database. What was granted lies there
// sealed: who can write to it may forget sessions and bring back ones of the
// last minute, but not put a key of his own in place of a guest's.
type sharedSessions struct {
	*bearers
	store SessionStore
	log   *slog.Logger
	max   int

	purged         atomic.Int64 // Duration since start
	granted, marks atomic.Int64 // about
}

func newSharedSessions(c Config) (*sharedSessions, error) {
	b, err := newBearers(c, c.Shared.Secret.Reveal(), time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	return &sharedSessions{bearers: b, store: c.Shared.Store, log: c.Log, max: c.MaxSessions}, nil
}

func (t *sharedSessions) size() (granted, marks int) {
	return int(t.granted.Load()), int(t.marks.Load())
}

func (t *sharedSessions) at(since time.Duration) time.Time { return t.start.Add(since) }

func (t *sharedSessions) use(ctx context.Context, s *session) error {
	now := t.now()
	if now < s.issued-maxSkew || now-s.issued >= t.life {
		return errExpired
	}
	t.purge(ctx, now)
	if t.marks.Load() >= int64(marksPerGrant*t.max) {
		return errFull
	}
	err := t.store.UseSession(ctx, s.id.String(), t.at(s.issued+t.life+markGrace))
	if errors.Is(err, store.ErrUsed) {
		return errExpired
	}
	if err == nil {
		t.marks.Add(1)
	}
	return err
}

// purge runs at most once in purgeEvery.
func (t *sharedSessions) purge(ctx context.Context, now time.Duration) {
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

func (t *sharedSessions) grant(ctx context.Context, s *session, g grant) error {
	if t.granted.Load() >= int64(t.max) {
		return errFull
	}
	g.until = t.now() + t.life
	plain, err := encodeGrant(g)
	if err != nil {
		return err
	}
	err = t.store.GrantSession(ctx, s.id.String(), t.seal(grantOf(s), plain), t.at(g.until+markGrace))
	if err == nil {
		t.granted.Add(1)
	}
	return err
}

// grantOf is the associated data of a session's grant: no dialect's name.
func grantOf(s *session) Dialect { return Dialect("grant of session " + s.id.String()) }

func (t *sharedSessions) take(ctx context.Context, s *session, c claim) (grant, error) {
	g, err := t.grantedTo(ctx, s)
	switch {
	case err != nil:
		return grant{}, err
	case !g.covers(s, c):
		return grant{}, errOther
	}
	left := g.of(c)
	*left, err = t.store.SpendSession(ctx, s.id.String(), c.resource, *left)
	if errors.Is(err, store.ErrUsed) {
		err = errExpired
	}
	return g, err
}

// grantedTo is what s was granted, as long as that is good.
func (t *sharedSessions) grantedTo(ctx context.Context, s *session) (g grant, err error) {
	sealed, err := t.store.SessionGrant(ctx, s.id.String())
	now := t.now()
	switch {
	case errors.Is(err, store.ErrNotFound) && now-s.issued >= t.life:
		return g, errExpired
	case errors.Is(err, store.ErrNotFound):
		return g, errNotAttested
	case err != nil:
		return g, err
	case sealed == nil:
		return g, errDenied
	}
	n := t.aead.NonceSize()
	if len(sealed) < n {
		return g, fmt.Errorf("grant of session %s: %w", s.id, store.ErrTampered)
	}
	plain, err := t.aead.Open(nil, sealed[:n], sealed[n:], []byte(grantOf(s)))
	if err != nil {
		return g, fmt.Errorf("grant of session %s: %w", s.id, store.ErrTampered)
	}
	if g, err = decodeGrant(plain); err != nil {
		return g, fmt.Errorf("grant of session %s: %w", s.id, err)
	}
	if now >= g.until {
		return g, errExpired
	}
	return g, nil
}

// grantForm is a grant as it is sealed.
type grantForm struct {
	WorkloadID   string         `json:"workload_id"`
	Registration kbs.Digest     `json:"registration"`
	ReportData   kbs.ReportData `json:"report_data"`
	recipient.Form
	Until time.Duration `json:"until"`
	Left  int           `json:"left"`
}

func encodeGrant(g grant) ([]byte, error) {
	form, err := recipient.Encode(g.recipient)
	if err != nil {
		return nil, err
	}
	return json.Marshal(grantForm{g.workloadID, g.registration, g.reportData, form, g.until, g.left})
}

func decodeGrant(b []byte) (grant, error) {
	var f grantForm
	if err := kbs.UnmarshalStrict(b, &f); err != nil {
		return grant{}, err
	}
	r, err := f.Decode()
	return grant{f.WorkloadID, f.Registration, f.ReportData, r, f.Until, f.Left, maxResourceReleases}, err
}
