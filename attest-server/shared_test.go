package attestserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

func shared(t testing.TB, r *rig) *session.Shared {
	t.Helper()
	s, err := r.store.SessionSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &session.Shared{Secret: s, Store: r.store}
}

// pair is two servers on one store; the rig's calls go to them in turn.
func pair(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := newRig(t, change...)
	var both [2]*Server
	for i := range both {
		c := r.server.Config
		c.Store, c.Metrics = r.store, nil
		c.Verifiers[kbs.Sample] = fakeTEE{}
		c.Shared = shared(t, r)
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		both[i] = s
	}
	var n atomic.Int64
	handlers := [2]http.Handler{both[0].Handler(), both[1].Handler()}
	r.http.Config.Handler = asDescribed(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[n.Add(1)%2].ServeHTTP(w, r)
	}))
	r.server = both[0]
	return r
}

// TestSharedHandshake: each request of a handshake goes to another server.
func TestSharedHandshake(t *testing.T) {
	r := pair(t)
	r.register("w1", 1)
	for range 3 {
		c, req := r.guest("w1", 1)
		k, err := c.Release(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if string(k.Reveal()) != diskKeyText+"w1" {
			t.Error("another key")
		}
	}
}

// TestSharedNonceOnce sends each attestation to both servers at once.
func TestSharedNonceOnce(t *testing.T) {
	r := pair(t)
	r.register("w1", 1)
	for round := range 20 {
		h := r.begin("w1", 1)
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				status, b := r.call("POST", "/v1/attest", h.bearer, h.attest)
				switch c := code(t, status, b); c {
				case "":
					won.Add(1)
				case kbs.CodeSessionExpired:
				default:
					t.Errorf("attest: %s", c)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: accepted %d times", round, won.Load())
		}
	}
}

// TestSharedReleasesPerSession: the limit of a session counts on all servers
// together, and its times hold.
func TestSharedReleasesPerSession(t *testing.T) {
	r := pair(t)
	r.register("w1", 1)
	h := r.begin("w1", 1)
	if got := h.doKey(); got != kbs.CodeNotAttested {
		t.Errorf("before attest: %q", got)
	}
	if got := h.doAttest(); got != "" {
		t.Fatal(got)
	}
	for i := range 5 {
		want := ""
		if i >= 3 {
			want = kbs.CodeSessionExpired
		}
		if got := h.doKey(); got != want {
			t.Errorf("release %d: %q, expected %q", i+1, got, want)
		}
	}
	h = r.begin("w1", 1)
	h.doAttest()
	r.clock.advance(61 * time.Second)
	if got := h.doKey(); got != kbs.CodeSessionExpired {
		t.Errorf("after a life: %q", got)
	}
	h = r.begin("w1", 1)
	r.clock.advance(60 * time.Second)
	if got := h.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("late: %q", got)
	}
	h = r.begin("w1", 9)
	if got := h.doAttest(); got != kbs.CodeAttestationDenied {
		t.Errorf("denied: %q", got)
	}
	if got := h.doKey(); got != kbs.CodeAttestationDenied {
		t.Errorf("key after a denial: %q", got)
	}
	h = r.begin("w1", 1)
	r.clock.advance(-time.Hour)
	if got := h.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("clock set back by an hour: %q", got)
	}
}

// TestDatabaseGone: what a server says while its database does not answer.
func TestDatabaseGone(t *testing.T) {
	r := pair(t)
	r.register("w1", 1)
	gone := &goneSessions{Store: r.store}
	c := r.server.Config
	c.Store, c.Metrics = r.store, nil
	c.Verifiers[kbs.Sample] = fakeTEE{}
	c.Shared = shared(t, r)
	c.Shared.Store = gone
	server, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h := r.begin("w1", 1)
	r.http.Config.Handler = server.Handler()
	gone.err = fmt.Errorf("%w: connection refused", store.ErrUnavailable)
	status, b := r.call("POST", "/v1/attest", h.bearer, h.attest)
	if got := code(t, status, b); got != kbs.CodeUnavailable || status != 503 || strings.Contains(string(b), "refused") {
		t.Errorf("%d %s", status, b)
	}
	gone.err = nil
	if got := h.doAttest(); got != "" {
		t.Errorf("the same nonce, unspent, when it is back: %q", got)
	}
}

// goneSessions is a database that does not answer while err is set.
type goneSessions struct {
	session.Store
	err error
}

func (g *goneSessions) UseSession(ctx context.Context, id string, until time.Time) error {
	if g.err != nil {
		return g.err
	}
	return g.Store.UseSession(ctx, id, until)
}

func TestSharedNeedsItsSecret(t *testing.T) {
	r := newRig(t)
	for _, s := range []*session.Shared{{}, {Store: r.store}, {Secret: secret.New(make([]byte, 32))}, {Secret: secret.New([]byte("short")), Store: r.store}} {
		c := r.server.Config
		c.Shared = s
		if _, err := New(c); err == nil {
			t.Errorf("New with %+v", s)
		}
	}
}

// TestSharedSessionsAreBounded: grants and denials fill a table, which empties
// with time.
func TestSharedSessionsAreBounded(t *testing.T) {
	r := pair(t, func(c *Config) { c.MaxSessions = 3 })
	r.http.Config.Handler = r.server.Handler()
	r.register("w1", 1)
	for round := range 3 {
		for i := range 5 {
			want := ""
			if i >= 3 {
				want = kbs.CodeUnavailable
			}
			if got := r.begin("w1", 1).doAttest(); got != want {
				t.Errorf("round %d, attest %d: %q, expected %q", round, i, got, want)
			}
		}
		for i := range 3*marksPerGrant + 2 {
			h := r.begin("w1", 9)
			want := kbs.CodeAttestationDenied
			if i >= 3*marksPerGrant-5 {
				want = kbs.CodeUnavailable
			}
			if got := h.doAttest(); got != want {
				t.Fatalf("round %d, denial %d: %q, expected %q", round, i, got, want)
			}
		}
		r.clock.advance(3 * time.Minute)
	}
}
