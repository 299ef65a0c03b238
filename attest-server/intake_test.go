package attestserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
)

// watchedBody is a request's body that knows how much memory was reserved for
// bodies whenever it was read.
type watchedBody struct {
	io.Reader
	reserved func() int64
	most     int64
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.most = max(b.most, b.reserved())
	return b.Reader.Read(p)
}

func (*watchedBody) Close() error { return nil }

// attest posts a body from address and says how much memory it was given.
func (r *rig) attest(address, path string, size int, header ...string) (status int, reserved int64, answered http.Header) {
	b := &watchedBody{Reader: bytes.NewReader(bytes.Repeat([]byte(" "), size)), reserved: r.server.limits.BodyBytes}
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodPost, path, b)
	req.ContentLength, req.RemoteAddr = int64(size), address
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.http.Config.Handler.ServeHTTP(w, req)
	if left := r.server.limits.BodyBytes(); left != 0 {
		r.t.Errorf("%s: %d bytes stay reserved", path, left)
	}
	return w.Code, b.most, w.Header()
}

// TestNoBodyWithoutSession: of who is in no session nothing is kept, in any
// dialect; a session's body has its own size reserved.
func TestNoBodyWithoutSession(t *testing.T) {
	const size = 64 << 10
	for _, dialects := range [][]session.Dialect{{session.Native, session.Trustee, session.Legacy}, {session.Native, session.Trustee}, {session.Native, session.Legacy}} {
		r := newRig(t, withSNP(t, dialects...))
		_, nativeBearer, err := r.server.sessions.Open(session.Native, kbs.Sample, "w1")
		if err != nil {
			t.Fatal(err)
		}
		_, trusteeBearer, err := r.server.sessions.Open(session.Trustee, kbs.SNP, "")
		if err != nil {
			t.Fatal(err)
		}
		_, legacyBearer, err := r.server.sessions.OpenShort("w1")
		if err != nil {
			t.Fatal(err)
		}
		trusteeCookie, legacyCookie := "kbs-session-id="+trusteeBearer, "session_id="+legacyBearer
		for _, x := range []struct {
			name, path string
			header     []string
			open       bool
		}{
			{"native, none", "/v1/attest", nil, false},
			{"native, made up", "/v1/attest", []string{"Authorization", "Bearer AAAA"}, false},
			{"native, trustee's", "/v1/attest", []string{"Authorization", "Bearer " + trusteeBearer}, false},
			{"native", "/v1/attest", []string{"Authorization", "Bearer " + nativeBearer}, true},
			{"foreign, none", "/kbs/v0/attest", nil, false},
			{"foreign, made up", "/kbs/v0/attest", []string{"Cookie", "kbs-session-id=AAAA; session_id=AAAA"}, false},
			{"foreign, native's", "/kbs/v0/attest", []string{"Cookie", "kbs-session-id=" + nativeBearer}, false},
			{"trustee", "/kbs/v0/attest", []string{"Cookie", trusteeCookie}, slices.Contains(dialects, session.Trustee)},
			{"legacy", "/kbs/v0/attest", []string{"Cookie", legacyCookie}, slices.Contains(dialects, session.Legacy)},
		} {
			status, reserved, _ := r.attest("192.0.2.1:1", x.path, size, x.header...)
			if (reserved == size) != x.open || (reserved == 0) == x.open || status/100 != 4 {
				t.Errorf("%v: %s: %d, %d bytes reserved while it was read", dialects, x.name, status, reserved)
			}
		}
		r.clock.advance(r.server.SessionLife)
		if _, reserved, _ := r.attest("192.0.2.1:1", "/v1/attest", size, "Authorization", "Bearer "+nativeBearer); reserved != 0 {
			t.Error("a session that has ended had its body read")
		}
	}
}

// TestBodiesAreBounded: a body that does not fit is refused unread, with the
// time to come again, whether its length is known or not.
func TestBodiesAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Limits.BodyBytes = 256 << 10 })
	_, bearer, err := r.server.sessions.Open(session.Native, kbs.Sample, "w1")
	if err != nil {
		t.Fatal(err)
	}
	auth := []string{"Authorization", "Bearer " + bearer}
	for _, x := range []struct {
		address string
		size    int
		fits    bool
	}{{"192.0.2.1:1", 64 << 10, true}, {"192.0.2.1:1", 64<<10 + 1, false}, {"127.0.0.1:1", 192 << 10, true}, {"127.0.0.1:1", 192<<10 + 1, false}} {
		status, reserved, header := r.attest(x.address, "/v1/attest", x.size, auth...)
		if (status == 503) == x.fits || (reserved > 0) != x.fits || (header.Get("Retry-After") == "") != x.fits {
			t.Errorf("%d bytes from %s: %d, %d reserved, %v", x.size, x.address, status, reserved, header)
		}
	}
	for _, size := range []int{63 << 10, 65 << 10} { // its length is not said
		req := httptest.NewRequest(http.MethodPost, "/v1/attest", io.MultiReader(strings.NewReader(strings.Repeat(" ", size))))
		req.ContentLength, req.RemoteAddr = -1, "192.0.2.1:1"
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(auth[0], auth[1])
		w := httptest.NewRecorder()
		r.http.Config.Handler.ServeHTTP(w, req)
		if (w.Code == 503) != (size > 64<<10) {
			t.Errorf("%d bytes in pieces: %d %s", size, w.Code, w.Body)
		}
	}
}

// TestRequestsAreBounded: those beyond are told when to come again; health
// checks get through.
func TestRequestsAreBounded(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	r := newRig(t, func(c *Config) {
		c.Limits.Requests = 1
		c.Pages = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- true; <-leave })
	})
	go r.from("127.0.0.1:1", "/ui/x", "")
	<-entered
	if w := r.from("127.0.0.1:1", "/v1/jwks", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := r.from("127.0.0.1:1", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthz: %d", w.Code)
	}
	leave <- true
}

// listening is the rig's server on a listener of its own, in clear.
func (r *rig) listening() (address string) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	srv := r.server.HTTPServer()
	go srv.Serve(r.server.Listener(l))
	r.t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// dial opens a connection from an address. nil: it was closed at once.
func (r *rig) dial(from, to string) net.Conn {
	r.t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// answered sends a request and says whether it is answered.
func answered(c net.Conn) bool {
	if c == nil {
		return false
	}
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	return err == nil && resp.StatusCode == http.StatusOK && resp.Body.Close() == nil
}

// TestIdleConnectionsKeepNobodyOut: whoever opens connections and asks nothing
// loses them to those who ask, the oldest first; a request under way is left.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	r := newRig(t, func(c *Config) {
		c.Limits = answer.RateLimits{Connections: 10, AddressConnections: 8, Exempt: []netip.Prefix{}}
		c.Pages = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- true; <-leave })
	})
	to := r.listening()
	working := r.dial("127.0.0.9", to)
	fmt.Fprint(working, "GET /ui/x HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	var idle []net.Conn
	for range 40 {
		idle = append(idle, r.dial("127.0.0.2", to))
	}
	for i := range 12 {
		if c := r.dial(fmt.Sprint("127.0.1.", i+1), to); !answered(c) {
			t.Errorf("guest %d is not answered beside idle connections", i)
		}
	}
	if n := r.server.limits.Open(); n > 10 {
		t.Errorf("%d connections are open, at most 10 were allowed", n)
	}
	if _, err := idle[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest idle connection was answered")
	}
	leave <- true
	if resp, err := http.ReadResponse(bufio.NewReader(working), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the request under way: %v, %v", resp, err)
	}
}

// TestConnectionsCount: connections without a request use up an address's rate
// as requests do; an exempt address has none.
func TestConnectionsCount(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Limits = answer.RateLimits{PerAddress: answer.Rate{PerSecond: 1, Burst: 3}, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	})
	to := r.listening()
	for from, want := range map[string]int{"127.0.0.1": 6, "127.0.0.2": 20} { // requests, and as many refusals
		served := 0
		for range 20 {
			if answered(r.dial(from, to)) {
				served++
			}
		}
		if served != want {
			t.Errorf("%d connections from %s were served, expected %d", served, from, want)
		}
	}
}
