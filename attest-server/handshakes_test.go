package attestserver

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/servertest"
)

// TestFailedHandshakesAreTold, but not all of them: nginx 1.22 offers TLS 1.2
// to its upstream by default.
func TestFailedHandshakesAreTold(t *testing.T) {
	out := new(servertest.Buffer)
	r := newRig(t, func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(out, nil)) })
	fail := func() {
		t.Helper()
		conn, err := tls.Dial("tcp", r.http.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
		if err == nil {
			conn.Close()
			t.Fatal("TLS 1.2 was spoken")
		}
	}
	const line = "a TLS handshake failed"
	told := func() int { return strings.Count(out.String(), line) }
	fail()
	for told() == 0 { // the server writes it after it has closed
		time.Sleep(time.Millisecond)
	}
	h := &handshakes{log: r.server.Log, clock: r.clock.Now}
	write := func(text string) {
		t.Helper()
		if n, err := h.Write([]byte(text + "\n")); err != nil || n != len(text)+1 {
			t.Error(n, err)
		}
	}
	const tooOld = "http: TLS handshake error from 192.0.2.1:4711: tls: client offered only unsupported versions: [303]"
	for range 1000 {
		write(tooOld)
	}
	if n := told(); n != 2 {
		t.Errorf("%d lines of a thousand handshakes and one, expected 2", n)
	}
	r.clock.advance(handshakesEvery)
	write(tooOld)
	if n := told(); n != 3 || !strings.Contains(out.String(), `"others_since":999`) {
		t.Errorf("a minute later: %d lines", n)
	}
	r.clock.advance(handshakesEvery)
	write("http: TLS handshake error from 192.0.2.1:4711: EOF")
	write("http: superfluous response.WriteHeader call")
	if n := told(); n != 3 {
		t.Error("who only tries the port is told of")
	}
	if !strings.Contains(out.String(), "unsupported versions") {
		t.Error("not told why")
	}
}
