package attestserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestEveryByteOfABearer flips each byte of every dialect's session in turn:
// none is a session then, and the true one is as good as before.
func TestEveryByteOfABearer(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Dialects = []session.Dialect{session.Native, session.Trustee, session.Legacy} })
	r.register("w1", 1)
	h := r.begin("w1", 1)
	if got := h.doAttest(); got != "" {
		t.Fatal(got)
	}
	flipped := func(whole string) (all []string) {
		for i := range len(whole) {
			b := []byte(whole)
			b[i] ^= 1
			all = append(all, string(b))
		}
		return all
	}
	good := h.bearer
	for i, b := range flipped(good) {
		h.bearer = b
		if got := h.doKey(); got != kbs.CodeSessionExpired && got != kbs.CodeUnauthorized {
			t.Errorf("native bearer, byte %d flipped: code %q", i, got)
		}
	}
	h.bearer = good
	if got := h.doKey(); got != "" {
		t.Errorf("the true bearer, after all: %q", got)
	}
	for cookie, x := range map[string]struct {
		auth  string
		parse func([]byte) (*session.Session, error)
	}{
		"kbs-session-id": {`{"version":"0.4.0","tee":"sample","extra-params":{}}`, func(b []byte) (*session.Session, error) { return r.server.sessions.Parse(session.Trustee, b) }},
		"session_id":     {`{"version":"0.0.0","tee":"snp","extra-params":"{\"workload_id\":\"w1\"}"}`, r.server.sessions.ParseShort},
	} {
		value := r.cookie(cookie, x.auth)
		if _, err := x.parse([]byte(value)); err != nil {
			t.Errorf("%s as it was given: %v", cookie, err)
		}
		for i, v := range append(flipped(value), value[:len(value)-1], value+"A", good) {
			if _, err := x.parse([]byte(v)); !errors.Is(err, session.ErrExpired) {
				t.Errorf("%s, byte %d flipped: %v", cookie, i, err)
			}
		}
	}
}

// cookie opens a session of a foreign dialect.
func (r *rig) cookie(name, auth string) string {
	r.t.Helper()
	resp, err := r.http.Client().Post(r.http.URL+"/kbs/v0/auth", "application/json", strings.NewReader(auth))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, c := range resp.Cookies() {
		if c.Name == name {
			return c.Value
		}
	}
	r.t.Fatalf("auth: %s without the cookie %s", resp.Status, name)
	return ""
}

// TestClockJumps sets the clock an hour on and back again, in the middle of
// everything that has to do with time.
func TestClockJumps(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	soon, _, err := r.store.CreateToken(t.Context(), "", store.Auditor, "", r.clock.Now().Add(30*time.Minute), "local")
	if err != nil {
		t.Fatal(err)
	}
	lists := func() error {
		c := r.adminClient(soon)
		_, err := c.List(t.Context())
		return err
	}
	used, fresh := r.begin("w1", 1), r.begin("w1", 1)
	if got := used.doAttest() + used.doKey(); got != "" {
		t.Fatal(got)
	}
	if err := lists(); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(time.Hour)
	if got := fresh.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("an hour on, a session of before: %q", got)
	}
	var p *kbs.ProblemError
	if err := lists(); !errors.As(err, &p) || p.Code != kbs.CodeUnauthorized {
		t.Errorf("an hour on, a token for half an hour: %v", err)
	}
	for range 3 { // marks of before are dropped
		h := r.begin("w1", 1)
		if got := h.doAttest() + h.doKey(); got != "" {
			t.Errorf("an hour on, a new session: %q", got)
		}
		r.clock.advance(time.Minute)
	}
	during := r.begin("w1", 1)
	r.clock.advance(-time.Hour - 3*time.Minute)
	if got := used.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("back again, a nonce that was used: %q", got)
	}
	if got := fresh.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("back again, a nonce that had expired: %q", got)
	}
	if got := during.doAttest() + during.doKey(); got != "" {
		t.Errorf("back again, a session under way: %q", got)
	}
	h := r.begin("w1", 1)
	if got := h.doAttest() + h.doKey(); got != "" {
		t.Errorf("back again, a new session: %q", got)
	}
	late := r.begin("w1", 1)
	r.clock.advance(time.Minute)
	if got := late.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("back again, a session has no end: %q", got)
	}
	if err := lists(); err != nil {
		t.Errorf("back again, a token that has not expired: %v", err)
	}
	if err := r.store.Audit(t.Context(), 0, func(kbs.AuditEntry) error { return nil }); err != nil {
		t.Errorf("audit: %v", err)
	}
}

// TestStoreGone: while the store has no answer, whoever asks is told to come
// back, by status and code, and the server goes on.
func TestStoreGone(t *testing.T) {
	var gone *goneStore
	r := newRig(t, func(c *Config) {
		gone = &goneStore{Store: c.Store}
		c.Store = gone
	})
	r.register("w1", 1)
	h := r.begin("w1", 1)
	gone.now.Store(true)
	if got := h.doAttest(); got != kbs.CodeUnavailable {
		t.Errorf("attest: %q", got)
	}
	status, b := r.call("GET", "/v1/workloads/w1", text(r.admin.Token), nil)
	if got := code(t, status, b); got != kbs.CodeUnavailable || status != http.StatusServiceUnavailable {
		t.Errorf("owner: %d %q", status, got)
	}
	if s := r.log.String(); !strings.Contains(s, "free space") || strings.Contains(string(b), "free space") {
		t.Errorf("the log must tell the operator what to do, the answer must not: %s", b)
	}
	gone.now.Store(false)
	h = r.begin("w1", 1)
	if got := h.doAttest() + h.doKey(); got != "" {
		t.Errorf("with the store back: %q", got)
	}
}

// goneStore is a store whose disk is full while now is set.
type goneStore struct {
	Store
	now atomic.Bool
}

func (g *goneStore) Workload(ctx context.Context, id string) (store.Workload, error) {
	if g.now.Load() {
		return store.Workload{}, fmt.Errorf("%w: database or disk is full (13): free space on the store's file system", store.ErrUnavailable)
	}
	return g.Store.Workload(ctx, id)
}

func (g *goneStore) VersionWith(ctx context.Context, id string, identity kbs.Digest) (store.Workload, error) {
	if w, err := g.Workload(ctx, id); err != nil {
		return w, err
	}
	return g.Store.VersionWith(ctx, id, identity)
}

// TestSlowClients: who connects and then says nothing, or little at a time, is
// cut off at a known time, and nobody waits for him.
func TestSlowClients(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	if c := r.http.Config; c.ReadHeaderTimeout <= 0 || c.ReadHeaderTimeout > 10*time.Second || c.ReadTimeout <= 0 || c.ReadTimeout > time.Minute ||
		c.WriteTimeout <= 0 || c.IdleTimeout <= 0 || c.MaxHeaderBytes <= 0 || c.MaxHeaderBytes > 64<<10 {
		t.Fatalf("limits %+v", c)
	}
	// The same server with a clock that runs faster.
	srv := r.server.HTTPServer()
	srv.ReadHeaderTimeout, srv.ReadTimeout = srv.ReadHeaderTimeout/10, srv.ReadTimeout/10
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	begin := time.Now()
	ended := make(chan time.Duration, 300)
	for i := range cap(ended) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		said := []string{"", "POST /v1/auth HTTP/1.1\r\nHost: x\r\nX", "POST /v1/auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"}[i%3]
		go func() {
			_, _ = c.Write([]byte(said))
			go func() { // a byte at a time, for as long as it is taken
				for said != "" {
					time.Sleep(100 * time.Millisecond)
					if _, err := c.Write([]byte(" ")); err != nil {
						return
					}
				}
			}()
			for b := make([]byte, 512); ; {
				if _, err := c.Read(b); err != nil {
					break
				}
			}
			ended <- time.Since(begin)
		}()
	}
	c, req := r.guest("w1", 1)
	for range 3 {
		if _, err := c.Release(t.Context(), req); err != nil {
			t.Errorf("a healthy guest meanwhile: %v", err)
		}
	}
	for range cap(ended) {
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			t.Fatal("a slow client is still connected")
		}
	}
}
