package attestserver

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

func shared(t testing.TB, r *rig) *Shared {
	t.Helper()
	s, err := r.store.SessionSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &Shared{Secret: s, Store: r.store}
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

// TestHostileDatabase plays an administrator of the database, who can change
// every row but has no MasterKey: no grant of his making or moving is good.
func TestHostileDatabase(t *testing.T) {
	r := pair(t)
	r.register("w1", 1)
	r.register("w2", 2)
	victim, other := r.begin("w1", 1), r.begin("w2", 2)
	for _, h := range []*handshake{victim, other} {
		if got := h.doAttest(); got != "" {
			t.Fatal(got)
		}
	}
	id := func(h *handshake) string {
		s, err := r.server.sessions.parse(Native, []byte(h.bearer))
		if err != nil {
			t.Fatal(err)
		}
		return s.id.String()
	}
	theirs, err := r.store.SessionGrant(t.Context(), id(other))
	if err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string][]byte{
		"another session's": theirs, "empty": {}, "short": theirs[:20], "bit flipped": append([]byte{theirs[0] ^ 1}, theirs[1:]...),
		"in clear": []byte(`{"workload_id":"w1"}`),
	} {
		s := fixedGrant{SessionStore: r.store, sealed: sealed}
		table := r.server.sessions.(*sharedSessions)
		probe := &sharedSessions{bearers: table.bearers, store: s, log: table.log, max: table.max}
		sess, err := probe.parse(Native, []byte(victim.bearer))
		if err != nil {
			t.Fatal(err)
		}
		if g, err := probe.take(t.Context(), sess, claim{workloadID: "w1"}); !errors.Is(err, store.ErrTampered) {
			t.Errorf("%s: %+v, %v", name, g, err)
		}
	}
}

type fixedGrant struct {
	SessionStore
	sealed []byte
}

func (f fixedGrant) SessionGrant(context.Context, string) ([]byte, error) { return f.sealed, nil }

func TestGrantsSurviveTheirForm(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, curve := range []string{"P-256", "P-521"} {
		_, jwk := cocoKey(t, curve)
		b, err := json.Marshal(jwk)
		if err != nil {
			t.Fatal(err)
		}
		_, rec, err := recipient.ParseJWK(b)
		if err != nil {
			t.Fatal(err)
		}
		same(t, grant{workloadID: "w", recipient: rec, left: 2, until: time.Hour})
	}
	same(t, grant{workloadID: "w", recipient: recipient.RSA{Public: &k.PublicKey}, left: 2})
	same(t, grant{workloadID: "w", recipient: recipient.Legacy{Public: &k.PublicKey}, reportData: kbs.ReportData{7}})
	if _, err := encodeGrant(grant{}); err == nil {
		t.Error("a grant to nobody")
	}
	for _, bad := range []string{`{}`, `{"recipient":"rsa"}`, `{"kem":1,"tee_key":"AA=="}`} {
		if _, err := decodeGrant([]byte(bad)); err == nil {
			t.Errorf("decoded %s", bad)
		}
	}
}

func same(t *testing.T, g grant) {
	t.Helper()
	g.registration = kbs.Sum384([]byte("registration"))
	b, err := encodeGrant(g)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeGrant(b)
	if err != nil || reflect.TypeOf(got.recipient) != reflect.TypeOf(g.recipient) {
		t.Fatalf("%s: %+v, %v", b, got, err)
	}
	again, err := encodeGrant(got)
	if err != nil || string(again) != string(b) {
		t.Errorf("%s became %s, %v", b, again, err)
	}
}

// TestDatabaseGone: what a server says while its database does not answer.
func TestDatabaseGone(t *testing.T) {
	r := pair(t)
	r.register("w1", 1)
	h := r.begin("w1", 1)
	gone := fmt.Errorf("%w: connection refused", store.ErrUnavailable)
	table := r.server.sessions.(*sharedSessions)
	table.store = failing{gone}
	e := failure(gone)
	if e.Code != kbs.CodeUnavailable || strings.Contains(e.Detail, "refused") {
		t.Errorf("%+v", e)
	}
	r.http.Config.Handler = r.server.Handler()
	status, b := r.call("POST", "/v1/attest", h.bearer, h.attest)
	if got := code(t, status, b); got != kbs.CodeUnavailable || status != 503 {
		t.Errorf("%d %s", status, got)
	}
	table.store = r.store
	if got := h.doAttest(); got != "" {
		t.Errorf("the same nonce, unspent, when it is back: %q", got)
	}
}

type failing struct{ err error }

func (f failing) UseSession(context.Context, string, time.Time) error           { return f.err }
func (f failing) GrantSession(context.Context, string, []byte, time.Time) error { return f.err }
func (f failing) SessionGrant(context.Context, string) ([]byte, error)          { return nil, f.err }
func (f failing) SpendSession(context.Context, string, bool, int) (int, error)  { return 0, f.err }
func (f failing) PurgeSessions(context.Context, time.Time, int) (int, int, error) {
	return 0, 0, f.err
}

func TestSharedNeedsItsSecret(t *testing.T) {
	r := newRig(t)
	for _, s := range []*Shared{{}, {Store: r.store}, {Secret: secret.New(make([]byte, 32))}, {Secret: secret.New([]byte("short")), Store: r.store}} {
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
