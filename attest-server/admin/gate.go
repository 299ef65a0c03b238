package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Who may call what. An admin may do everything.
var (
	Reading    = []store.Role{store.Admin, store.Publisher, store.Auditor}
	Publishing = []store.Role{store.Admin, store.Publisher}
	Auditing   = []store.Role{store.Admin, store.Auditor}
	Governing  = []store.Role{store.Admin}
)

// TokenStore is what the gate needs of a store. The error for whatever is no
// valid token is store.ErrBadToken.
type TokenStore interface {
	Authenticate(ctx context.Context, token secret.Bytes) (store.Token, error)
	// TenantMade tells a tenant from others of its name. store.ErrNotFound: there
	// is none.
	TenantMade(ctx context.Context, name string) (int64, error)
}

// Gate knows owners by their tokens and client certificates. All but clients,
// see SetClients, is needed.
type Gate struct {
	Tokens  TokenStore
	Limiter *answer.Limiter
	Clock   func() time.Time
	Log     *slog.Logger

	clients atomic.Pointer[acceptedClients]
}

// Handler answers the bearer of a token.
type Handler func(w http.ResponseWriter, r *http.Request, t store.Token) error

// actor is how the store and the log name a token's bearer.
func actor(t store.Token) string {
	if strings.HasPrefix(t.ID, clientActor) {
		return t.ID
	}
	return t.Actor()
}

// caller is t's bearer to the store.
func caller(t store.Token) store.Caller {
	return store.Caller{Actor: actor(t), Any: t.Role == store.Admin}
}

// Admit lets h be called with a valid token of one of the roles.
func (g *Gate) Admit(roles []store.Role, h Handler) answer.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		t, err := g.Authorize(r, roles, answer.Bearer(r))
		if err != nil {
			return err
		}
		return h(w, r, t)
	}
}

// Authorize is the token b, or without one what the client's certificate stands
// for, if it has one of the roles.
func (g *Gate) Authorize(r *http.Request, roles []store.Role, b secret.Bytes) (store.Token, error) {
	var t store.Token
	var err error
	if b.Len() == 0 {
		t, err = g.clientToken(r)
	} else {
		t, err = g.authenticate(r, b)
	}
	if err != nil {
		return store.Token{}, err
	}
	if err := g.Limiter.Token(t.ID, t.Tenant); err != nil {
		return store.Token{}, err
	}
	if !slices.Contains(roles, t.Role) {
		g.Log.Warn("admin request beyond its role", "method", r.Method, "path", r.URL.Path, "peer", answer.Peer(r), "token", t.ID, "role", t.Role)
		return store.Token{}, refusal.New(kbs.CodeForbidden, "token %s has role %s, which may not do this", t.ID, t.Role)
	}
	return t, nil
}

func (g *Gate) authenticate(r *http.Request, b secret.Bytes) (store.Token, error) {
	t, err := g.Tokens.Authenticate(r.Context(), b)
	if errors.Is(err, store.ErrBadToken) {
		g.Limiter.BadToken(r)
		g.Log.Warn("admin request with a bad token", "method", r.Method, "path", r.URL.Path, "peer", answer.Peer(r))
		return store.Token{}, refusal.New(kbs.CodeUnauthorized, "%v", err)
	}
	return t, err
}
