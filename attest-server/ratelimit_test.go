package attestserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/store"
)

// from sends a request as if from an address.
func (r *rig) from(address, path, bearer string) *httptest.ResponseRecorder {
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, path, nil)
	req.RemoteAddr = address
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	r.http.Config.Handler.ServeHTTP(w, req)
	return w
}

func TestAddressRate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits = answer.RateLimits{PerAddress: answer.Rate{PerSecond: 0.5, Burst: 3}} })
	limited := func(address, path string) bool {
		t.Helper()
		w := r.from(address, path, "")
		if w.Code != http.StatusTooManyRequests {
			return false
		}
		if c := code(t, w.Code, w.Body.Bytes()); c != kbs.CodeRateLimited || w.Header().Get("Retry-After") != "2" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%d %s %v", w.Code, c, w.Header())
		}
		return true
	}
	for i, same := range []string{"192.0.2.1:1", "192.0.2.1:2", "[::ffff:192.0.2.1]:3", "192.0.2.1:4"} {
		if got := limited(same, "/x"); got != (i == 3) {
			t.Errorf("request %d from %s limited: %v", i, same, got)
		}
	}
	if limited("192.0.2.2:1", "/x") || limited("192.0.2.1:1", "/healthz") || limited("192.0.2.1:1", "/readyz") || limited("127.0.0.1:1", "/x") {
		t.Error("another address, a health check or loopback was limited")
	}
	for i, same := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8:0:0:ffff::]:1", "[2001:db8::9]:1"} {
		if got := limited(same, "/x"); got != (i == 3) {
			t.Errorf("request %d from %s limited: %v", i, same, got)
		}
	}
	if limited("[2001:db8:0:1::1]:1", "/x") {
		t.Error("another /64 was limited")
	}
	r.clock.advance(2 * time.Second)
	if limited("192.0.2.1:1", "/x") || !limited("192.0.2.1:1", "/x") {
		t.Error("after two seconds one request is due, no more")
	}
}

// TestFloodIsNotAnswered: whoever goes on after as many refusals as he had
// requests loses his connections, and gets no new one until he has paused.
func TestFloodIsNotAnswered(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Limits = answer.RateLimits{PerAddress: answer.Rate{PerSecond: 1, Burst: 3}, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := r.server.HTTPServer()
	go srv.Serve(r.server.Listener(l))
	t.Cleanup(func() { srv.Close() })
	clients := map[string]*http.Client{}
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		clients[from] = &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
		defer clients[from].CloseIdleConnections()
	}
	get := func(from string) (status int, closed bool) {
		resp, err := clients[from].Get("http://" + l.Addr().String() + "/v1/jwks")
		if err != nil {
			return 0, true
		}
		_, _ = io.Copy(io.Discard, resp.Body) // else the connection is not used again
		resp.Body.Close()
		return resp.StatusCode, resp.Close
	}
	var got []string
	for range 8 {
		status, closed := get("127.0.0.1")
		got = append(got, fmt.Sprintf("%d/%v", status, closed))
	}
	want := "[200/false 200/false 429/false 429/false 429/false 429/true 0/true 0/true]" // the connection was the first
	if s := fmt.Sprint(got); s != want {
		t.Errorf("answers %s, expected %s", s, want)
	}
	if status, _ := get("127.0.0.2"); status == 0 || status == http.StatusTooManyRequests {
		t.Errorf("another address: %d", status)
	}
	r.clock.advance(10 * time.Second)
	if status, _ := get("127.0.0.1"); status == 0 || status == http.StatusTooManyRequests {
		t.Errorf("after a pause: %d", status)
	}
}

func TestBadTokensAreDear(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits = answer.RateLimits{PerAddress: answer.Rate{PerSecond: 1, Burst: 20}} })
	var statuses []int
	for range 3 {
		statuses = append(statuses, r.from("192.0.2.1:1", "/v1/workloads", "ccrun_000000000000_x").Code)
	}
	if fmt.Sprint(statuses) != "[401 401 429]" {
		t.Errorf("statuses %v", statuses)
	}
	if w := r.from("192.0.2.9:1", "/v1/workloads", string(r.admin.Token.Reveal())); w.Code != http.StatusOK {
		t.Errorf("the owner elsewhere: %d", w.Code)
	}
}

func TestBadLoginsAreDear(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Limits = answer.RateLimits{PerAddress: answer.Rate{PerSecond: 1, Burst: 20}}
		c.Pages = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ui/login" {
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
	})
	var statuses []int
	for range 3 {
		statuses = append(statuses, r.from("192.0.2.1:1", "/ui/login", "").Code)
	}
	for range 15 {
		statuses = append(statuses, r.from("192.0.2.2:1", "/", "").Code)
	}
	if got := fmt.Sprint(statuses[:3]); got != "[401 401 429]" || statuses[17] != http.StatusOK {
		t.Errorf("statuses %v", statuses)
	}
}

func TestTokenRate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits = answer.RateLimits{PerToken: answer.Rate{PerSecond: 1, Burst: 2}} })
	auditor := string(r.token(store.Auditor).Reveal())
	for i := range 3 {
		w := r.from("127.0.0.1:1", "/v1/workloads", auditor)
		if limited := w.Code == http.StatusTooManyRequests; limited != (i == 2) {
			t.Errorf("request %d: %d", i, w.Code)
		}
	}
	if w := r.from("127.0.0.1:1", "/v1/workloads", string(r.admin.Token.Reveal())); w.Code != http.StatusOK {
		t.Errorf("another token: %d", w.Code)
	}
}

func TestTenantRate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits = answer.RateLimits{PerToken: answer.Rate{PerSecond: 1, Burst: 2}} })
	if err := r.store.SetTenant(t.Context(), "acme", 1, 1, "local"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		text, _, err := r.store.CreateToken(t.Context(), "acme", store.Auditor, "", time.Time{}, "local")
		if err != nil {
			t.Fatal(err)
		}
		w := r.from("127.0.0.1:1", "/v1/workloads", string(text.Reveal()))
		if limited := w.Code == http.StatusTooManyRequests; limited != (i == 2) {
			t.Errorf("token %d of the tenant: %d", i, w.Code)
		}
	}
}

func TestMetricsOfHandshakes(t *testing.T) {
	shown := metrics.New()
	r := newRig(t, func(c *Config) { c.Metrics = shown })
	r.register("w1", 1)
	c, req := r.guest("w1", 1)
	if _, err := c.Release(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	c, req = r.guest("w1", 9)
	if _, err := c.Release(t.Context(), req); err == nil {
		t.Fatal("released")
	}
	req.Attest = func(context.Context, kbs.ReportData) (kbs.Evidence, error) {
		return kbs.Evidence{TEE: kbs.Sample, Report: []byte("forged")}, nil
	}
	if _, err := c.Release(t.Context(), req); err == nil {
		t.Fatal("released")
	}
	b := httptest.NewRecorder()
	shown.Handler().ServeHTTP(b, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`attest_server_releases_total{kind="key",outcome="released"} 1`,
		`attest_server_attestations_total{result="affirming",tee="sample"} 1`,
		`attest_server_attestations_total{result="contraindicated",tee="sample"} 2`,
		`attest_server_denials_total{rule="measurement",tee="sample"} 1`,
		`attest_server_denials_total{rule="signature",tee="sample"} 1`,
		`attest_server_request_duration_seconds_count{route="POST /v1/attest",status="2xx"} 1`,
		`attest_server_request_duration_seconds_count{route="POST /v1/attest",status="4xx"} 2`,
		`attest_server_verify_duration_seconds_count{authentic="no",tee="sample"} 1`,
		`attest_server_verify_duration_seconds_count{authentic="yes",tee="sample"} 2`,
		`attest_server_store_duration_seconds_count{operation="release"} 1`,
		`attest_server_sessions{state="granted"} 1`,
		`attest_server_sessions{state="spent"} 2`,
	} {
		if !strings.Contains(b.Body.String(), want+"\n") {
			t.Errorf("metrics lack %s:\n%s", want, b.Body.String())
		}
	}
}

// TestMetricsNeedLogin: they are on the guests' listener too, but for the
// operator's auditors and admins alone.
func TestMetricsNeedLogin(t *testing.T) {
	r := newRig(t)
	r.register("secret-name", 1)
	r.tenant("acme", store.Auditor)
	tenants, _, err := r.store.CreateToken(t.Context(), "acme", store.Auditor, "", time.Time{}, "local")
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		bearer string
		want   int
	}{
		"nobody": {"", 401}, "made up": {"ccrun_000000000000_AAAA", 401}, "guest": {r.begin("secret-name", 1).bearer, 401},
		"publisher": {text(r.token(store.Publisher)), 403}, "tenant's auditor": {text(tenants), 403},
		"auditor": {text(r.token(store.Auditor)), 200}, "admin": {text(r.admin.Token), 200},
	} {
		status, b := r.call("GET", "/metrics", x.bearer, nil)
		if status != x.want || strings.Contains(string(b), "attest_server_") != (x.want == 200) {
			t.Errorf("%s: %d, expected %d\n%.200s", name, status, x.want, b)
		}
		if strings.Contains(string(b), "secret-name") {
			t.Errorf("%s: the answer names a workload", name)
		}
	}
}
