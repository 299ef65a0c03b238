package kbs

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// scripted is a server that does everything right until a test changes it.
type scripted struct {
	t    *testing.T
	http *httptest.Server
	ca   *party

	mu     sync.Mutex
	calls  []string
	keys   map[string]bool // TEE keys seen
	last   AttestRequest
	change func(path string, w http.ResponseWriter) bool // true: answered
	moved  func(MovedRequest) MovedAnswer                // nil: it is still here
}

func newScripted(t *testing.T, change ...func(*tls.Config)) *scripted {
	t.Helper()
	s := &scripted{t: t, keys: map[string]bool{}, ca: newParty(t, nil, isCA("ca"))}
	s.http = httptest.NewUnstartedServer(s)
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{newParty(t, s.ca, isServer("127.0.0.1")).tls(s.ca)}}
	for _, f := range change {
		f(s.http.TLS)
	}
	s.http.StartTLS()
	t.Cleanup(s.http.Close)
	return s
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, r.URL.Path)
	if s.change != nil && s.change(r.URL.Path, w) {
		return
	}
	if s.moved != nil {
		s.serveMoved(w, r)
		return
	}
	switch r.URL.Path {
	case "/v1/auth":
		answer(w, AuthAnswer{Session: "session", Nonce: bytes.Repeat([]byte{7}, NonceSize), ExpiresIn: 60, ServerTime: time.Unix(1e9, 0)})
	case "/v1/attest":
		if err := DecodeStrict(r.Body, MaxAttestBody, &s.last); err != nil || r.Header.Get("Authorization") != "Bearer session" {
			s.t.Errorf("attest: %v, %v", err, r.Header)
		}
		s.keys[string(s.last.RuntimeData.TEEKey.Public)] = true
		answer(w, AttestAnswer{Result: Affirming})
	case "/v1/workloads/shop/key":
		answer(w, s.seal("shop", "the key"))
	default:
		s.t.Errorf("unexpected call %s %s", r.Method, r.URL.Path)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (s *scripted) seal(id, plain string) Sealed {
	pub, err := hpke.MLKEM768X25519().NewPublicKey(s.last.RuntimeData.TEEKey.Public)
	if err != nil {
		s.t.Error(err)
		return Sealed{}
	}
	rd, err := Binding("shop", s.last.RuntimeData)
	if err != nil {
		s.t.Error(err)
	}
	enc, sender, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), ReleaseInfo(rd, ReleaseName(id)))
	if err != nil {
		s.t.Error(err)
		return Sealed{}
	}
	ct, _ := sender.Seal(nil, []byte(plain))
	return Sealed{Enc: enc, Ciphertext: ct, ServerTime: time.Unix(1e9, 0)}
}

func (s *scripted) client() *Client {
	return &Client{URLs: []string{s.http.URL}, PinnedKeys: []string{PinOf(s.ca.cert)}, Timeout: time.Minute}
}

func shop() ReleaseRequest {
	return ReleaseRequest{
		WorkloadID: "shop", TEE: SNP, IdentityDigest: Sum384([]byte("i")), FooterDigest: Sum384([]byte("f")),
		Attest: func(_ context.Context, rd ReportData) (Evidence, error) {
			return Evidence{TEE: SNP, Report: rd[:]}, nil
		},
	}
}

func problemAnswer(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(Problem{Type: "about:blank", Title: "t", Status: status, Code: code, Session: "n1"})
	return true
}

func TestRelease(t *testing.T) {
	s := newScripted(t)
	req := shop()
	var at time.Time
	req.OnServerTime = func(t time.Time) { at = t }
	k, err := s.client().Release(t.Context(), req)
	if err != nil || string(k.Reveal()) != "the key" || at.Unix() != 1e9 {
		t.Fatalf("Release = %q at %v, %v", k.Reveal(), at, err)
	}
	rd, err := Binding("shop", s.last.RuntimeData)
	if err != nil || !bytes.Equal(rd[:], s.last.Evidence.Report) {
		t.Errorf("the evidence is not over the binding: %v", err)
	}
}

// TestReleaseRefusesAnswers plays a server that breaks the protocol: no key
// may come of it, nor a panic, nor an endless wait.
func TestReleaseRefusesAnswers(t *testing.T) {
	on := func(path string, do func(w http.ResponseWriter)) func(*scripted) {
		return func(s *scripted) {
			s.change = func(p string, w http.ResponseWriter) bool {
				if !strings.HasSuffix(p, path) {
					return false
				}
				do(w)
				return true
			}
		}
	}
	body := func(text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, text)
		}
	}
	for name, prepare := range map[string]func(*scripted){
		"redirect of auth":   on("/auth", func(w http.ResponseWriter) { w.Header().Set("Location", "/v1/attest"); w.WriteHeader(307) }),
		"redirect of key":    on("/key", func(w http.ResponseWriter) { w.Header().Set("Location", "/v1/auth"); w.WriteHeader(302) }),
		"HTML":               on("/auth", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); io.WriteString(w, "<html>") }),
		"no JSON":            on("/auth", body("hello")),
		"short nonce":        on("/auth", body(`{"session":"session","nonce":"AAAA","expires_in":1,"server_time":"2026-01-01T00:00:00Z"}`)),
		"no nonce":           on("/auth", body(`{"session":"session"}`)),
		"unknown member":     on("/auth", body(`{"session":"session","x":1}`)),
		"newline in session": on("/auth", body(`{"session":"a\nb","nonce":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","expires_in":1,"server_time":"2026-01-01T00:00:00Z"}`)),
		"endless answer":     on("/auth", body(strings.Repeat(" ", 4*MaxAnswerBody))),
		"denied with 200":    on("/attest", body(`{"result":"contraindicated"}`)),
		"empty result":       on("/attest", body(`{}`)),
		"empty key answer":   on("/key", body(`{}`)),
		"key in clear":       on("/key", body(`{"enc":"","ciphertext":"dGhlIGtleQ==","server_time":"2026-01-01T00:00:00Z"}`)),
		"error without text": on("/key", func(w http.ResponseWriter) { w.WriteHeader(500) }),
		"problem of another status": on("/key", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(403)
			io.WriteString(w, `{"type":"","title":"","status":200,"code":"x"}`)
		}),
		"sealed as another workload's": func(s *scripted) {
			s.change = func(p string, w http.ResponseWriter) bool {
				if strings.HasSuffix(p, "/key") {
					answer(w, s.seal("other", "the key"))
				}
				return strings.HasSuffix(p, "/key")
			}
		},
		"empty secret": func(s *scripted) {
			s.change = func(p string, w http.ResponseWriter) bool {
				if strings.HasSuffix(p, "/key") {
					answer(w, s.seal("shop", ""))
				}
				return strings.HasSuffix(p, "/key")
			}
		},
		"huge secret": func(s *scripted) {
			s.change = func(p string, w http.ResponseWriter) bool {
				if strings.HasSuffix(p, "/key") {
					answer(w, s.seal("shop", strings.Repeat("x", MaxSecretBytes)))
				}
				return strings.HasSuffix(p, "/key")
			}
		},
	} {
		s := newScripted(t)
		prepare(s)
		if k, err := s.client().Release(t.Context(), shop()); err == nil || k.Len() != 0 {
			t.Errorf("%s: Release = %q, %v", name, k.Reveal(), err)
		}
	}
}

func TestReleaseTrustsPinsOnly(t *testing.T) {
	s := newScripted(t)
	other := newParty(t, nil, isCA("ca"))
	c := s.client()
	c.PinnedKeys = []string{PinOf(other.cert)}
	if _, err := c.Release(t.Context(), shop()); !errors.Is(err, ErrUnpinned) {
		t.Errorf("other pin: %v", err)
	}
	c = s.client()
	c.URLs = []string{strings.Replace(s.http.URL, "127.0.0.1", "localhost", 1)}
	if _, err := c.Release(t.Context(), shop()); err == nil {
		t.Error("the pinned CA's certificate for another host was taken")
	}
	if len(s.calls) != 0 {
		t.Errorf("an unpinned server was told %v", s.calls)
	}
	old := newScripted(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	if _, err := old.client().Release(t.Context(), shop()); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
	for name, c := range map[string]*Client{
		"zero":   {},
		"no pin": {URLs: []string{s.http.URL}},
		"no URL": {PinnedKeys: s.client().PinnedKeys},
		"http":   {PinnedKeys: s.client().PinnedKeys, URLs: []string{"http://127.0.0.1"}},
		"user":   {PinnedKeys: s.client().PinnedKeys, URLs: []string{"https://u:p@127.0.0.1"}},
		"path":   {PinnedKeys: s.client().PinnedKeys, URLs: []string{"https://127.0.0.1/kbs"}},
	} {
		if _, err := c.Release(t.Context(), shop()); err == nil {
			t.Errorf("%s: Release succeeded", name)
		}
	}
}

func TestReleaseTriesOthers(t *testing.T) {
	dead := httptest.NewTLSServer(nil)
	dead.Close()
	s := newScripted(t)
	c := s.client()
	c.URLs = []string{dead.URL, s.http.URL}
	if _, err := c.Release(t.Context(), shop()); err != nil {
		t.Errorf("with the first server down: %v", err)
	}

	c = s.client()
	c.URLs = []string{dead.URL}
	_, err := c.Release(t.Context(), shop())
	if err == nil || !strings.Contains(err.Error(), dead.URL) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestReleaseEndsAtDenial(t *testing.T) {
	for _, code := range []string{CodeAttestationDenied, CodeForbidden, CodeBadRequest, CodeNotAttested} {
		s := newScripted(t)
		s.change = func(path string, w http.ResponseWriter) bool {
			return strings.HasSuffix(path, "/attest") && problemAnswer(w, 403, code)
		}
		c := s.client()
		c.URLs, c.Wait = append(c.URLs, s.http.URL), Forever
		_, err := c.Release(t.Context(), shop())
		var p *ProblemError
		if !errors.As(err, &p) || p.Session != "n1" || !strings.Contains(p.Hint(), "ccrun explain n1") {
			t.Errorf("%s: %v", code, err)
		}
		if errors.Is(err, ErrDenied) != (code == CodeAttestationDenied) {
			t.Errorf("%s: ErrDenied = %v", code, errors.Is(err, ErrDenied))
		}
		if len(s.calls) != 2 {
			t.Errorf("%s: calls %v", code, s.calls)
		}
	}
}

func TestReleaseEndsWithTheGuestsOwnError(t *testing.T) {
	s := newScripted(t)
	broken := errors.New("no report device")
	req, asked := shop(), 0
	req.Attest = func(context.Context, ReportData) (Evidence, error) { asked++; return Evidence{}, broken }
	c := s.client()
	c.Wait = Forever
	if _, err := c.Release(t.Context(), req); !errors.Is(err, broken) || asked != 1 {
		t.Errorf("Release = %v after %d tries", err, asked)
	}
	req = shop()
	req.IdentityDigest = Digest{}
	if _, err := s.client().Release(t.Context(), req); err == nil {
		t.Error("no identity digest")
	}
	ctx, cancel := context.WithCancel(t.Context())
	req = shop()
	req.Attest = func(ctx context.Context, _ ReportData) (Evidence, error) { cancel(); return Evidence{TEE: SNP}, nil }
	if _, err := s.client().Release(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestAdminClientKnowsItsServer(t *testing.T) {
	s := newScripted(t)
	s.change = func(_ string, w http.ResponseWriter) bool { answer(w, WorkloadList{}); return true }
	token := secretBytes("ccrun_x_y")
	c := AdminClient{URL: s.http.URL, Token: token}
	_, err := c.List(t.Context())
	var h interface{ Hint() string }
	if !errors.As(err, &h) || !strings.Contains(h.Hint(), "--ca") {
		t.Errorf("system roots: %v", err)
	}
	c.PinnedKeys = []string{PinOf(newParty(t, nil, isCA("x")).cert)}
	if _, err := c.List(t.Context()); !errors.Is(err, ErrUnpinned) {
		t.Errorf("other pin: %v", err)
	}
	if len(s.calls) != 0 {
		t.Error("the token went to a server nobody vouched for")
	}
	c.PinnedKeys = []string{PinOf(s.ca.cert)}
	if _, err := c.List(t.Context()); err != nil {
		t.Errorf("pinned: %v", err)
	}
	if _, err := (&AdminClient{URL: s.http.URL, PinnedKeys: c.PinnedKeys}).List(t.Context()); err == nil {
		t.Error("no token")
	}
	s.change = func(_ string, w http.ResponseWriter) bool {
		answer(w, WorkloadList{Workloads: []WorkloadSummary{{WorkloadID: "a"}}, Next: "a"})
		return true
	}
	if _, err := c.List(t.Context()); err == nil {
		t.Error("endless pages")
	}
}

// TestReleaseEndsWithItsContext: whatever a guest waits for, it obeys a stop at
// once. A host makes any of these waits long.
func TestReleaseEndsWithItsContext(t *testing.T) {
	hangs := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	refuses := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") }
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s := newScripted(t)
	for name, c := range map[string]*Client{
		"dialing":       {URLs: []string{"https://192.0.2.1"}, Dial: hangs},
		"TLS handshake": {URLs: []string{"https://" + silent.Addr().String()}},
		"name":          {URLs: []string{"https://does-not-resolve.invalid"}},
		"pause":         {URLs: []string{"https://127.0.0.1:1"}, Wait: Forever, Dial: refuses},
	} {
		c.PinnedKeys = s.client().PinnedKeys
		stopped := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(stopped) })
		start := time.Now()
		if _, err := c.Release(ctx, shop()); err == nil {
			t.Errorf("%s: released", name)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: ended %s after the stop", name, took)
		}
	}
}

// TestServerURLs: nothing but HTTPS to a host, whoever asks.
func TestServerURLs(t *testing.T) {
	for _, good := range []string{"https://a.example", "https://a.example:8443", "https://192.0.2.1:8443/", "https://[2001:db8::1]:8443"} {
		if err := CheckServerURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a.example", "http://a.example", "HTTP://a.example", "ftp://a.example", "//a.example", "https://", "https:///x", "https://a.example/x",
		"https://u@a.example", "https://u:p@a.example", "https://a.example?x", "https://a.example?x=1", "https://a.example#x", "https://a.example:x",
	} {
		if err := CheckServerURL(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
		if x, err := newExchange(&http.Transport{}, bad, time.Second); err == nil {
			t.Errorf("%q: an exchange with %s", bad, x.base)
		}
	}
}

// TestNoProxyFromTheEnvironment: it is the host's to set. What the standard
// library reads of it is read once in a process, so that the transport is looked
// at and not what it does.
func TestNoProxyFromTheEnvironment(t *testing.T) {
	x, err := (&Client{}).connect("https://a.example", Pins{})
	if err != nil {
		t.Fatal(err)
	}
	transport, ok := x.client.Transport.(*http.Transport)
	if !ok || transport.Proxy != nil {
		t.Errorf("transport %T with a proxy", x.client.Transport)
	}
}
