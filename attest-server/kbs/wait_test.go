package kbs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network in memory, so that time can be the test's. Only the
// servers listening on it can be reached.
type pipes struct {
	listeners map[string]chan net.Conn
	dials     []string
}

func (p *pipes) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.dials = append(p.dials, address)
	l, ok := p.listeners[address]
	if !ok {
		return nil, syscall.ECONNREFUSED
	}
	near, far := net.Pipe()
	select {
	case l <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// waiting is a scripted server at https://127.0.0.1:1, and nobody at :2, on a
// network in memory. It must be called in a synctest bubble.
func waiting(t *testing.T) (*scripted, *Client, *pipes) {
	s := &scripted{t: t, keys: map[string]bool{}, ca: newParty(t, nil, isCA("ca"))}
	l := &pipeListener{make(chan net.Conn), make(chan struct{})}
	p := &pipes{listeners: map[string]chan net.Conn{"127.0.0.1:1": l.conns}}
	srv := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	cert := newParty(t, s.ca, isServer("127.0.0.1")).tls(s.ca)
	go srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}))
	t.Cleanup(func() { srv.Close() })
	return s, &Client{URLs: []string{"https://127.0.0.1:1"}, PinnedKeys: []string{PinOf(s.ca.cert)}, Wait: Forever, Dial: p.dial}, p
}

// TestReleaseWaits: a server that is away for longer than any boot may take is
// waited for, at a pace that slows down to one try a minute.
func TestReleaseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, net := waiting(t)
		back := net.listeners["127.0.0.1:1"]
		delete(net.listeners, "127.0.0.1:1")
		start := time.Now()
		req := shop()
		var pauses []time.Duration
		req.OnRetry = func(why error, pause time.Duration) {
			if !errors.Is(why, syscall.ECONNREFUSED) {
				t.Errorf("said %v", why)
			}
			if pauses = append(pauses, pause); time.Since(start) > 3*time.Hour {
				net.listeners["127.0.0.1:1"] = back
			}
		}
		k, err := c.Release(t.Context(), req)
		if err != nil || k.Len() == 0 {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 3*time.Hour || took > 3*time.Hour+2*longestPause {
			t.Errorf("released after %s, of a server back after three hours", took)
		}
		if n := len(net.dials); n < 180 || n > 380 {
			t.Errorf("asked %d times in three hours, expected once or twice a minute", n)
		}
		if pauses[0] > firstPause || pauses[0] < firstPause/2 || pauses[20] > longestPause || pauses[20] < longestPause/2 || pauses[20] == pauses[21] {
			t.Errorf("pauses %s: expected them to grow, to have an end and to vary", pauses[:22])
		}
	})
}

// TestReleaseWaitsAsLongAsItsPolicy, then says what the last trouble was.
func TestReleaseWaitsAsLongAsItsPolicy(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			_, c, net := waiting(t)
			c.URLs, c.Wait = []string{"https://127.0.0.1:2", "https://127.0.0.1:3"}, wait
			start := time.Now()
			_, err := c.Release(t.Context(), shop())
			if took := time.Since(start); took != wait {
				t.Errorf("waited %s, expected %s", took, wait)
			}
			for _, want := range []string{"127.0.0.1:2 for the disk key", "127.0.0.1:3 for the disk key", "refused"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("Release = %v, expected %q in it", err, want)
				}
			}
			if named := strings.Contains(err.Error(), fmt.Sprint("within ", wait)); named != (wait > 0) {
				t.Errorf("Release = %v", err)
			}
			if wait == 0 && len(net.dials) != 2 {
				t.Errorf("dialed %v, expected each once", net.dials)
			}
		})
	}
}

// TestReleaseHonoursRetryAfter, up to five minutes, and asks others meanwhile.
func TestReleaseHonoursRetryAfter(t *testing.T) {
	for name, x := range map[string]struct {
		status   int
		header   string
		least    time.Duration
		most     time.Duration
		otherURL bool
	}{
		"in seconds":      {503, "30", 30 * time.Second, 46 * time.Second, false},
		"too many":        {429, "7", 7 * time.Second, 11 * time.Second, false},
		"bounded":         {503, "86400", 5 * time.Minute, 8 * time.Minute, false},
		"of another kind": {500, "30", 0, time.Second, false},
		"a date":          {503, "Wed, 21 Oct 2015 07:28:00 GMT", 0, time.Second, false},
		"negative":        {503, "-1", 0, time.Second, false},
		"beside another":  {503, "30", 30 * time.Second, 65 * time.Second, true},
	} {
		for _, form := range []string{"ours", "a proxy's"} {
			synctest.Test(t, func(t *testing.T) {
				s, c, net := waiting(t)
				var at []time.Time
				s.change = func(path string, w http.ResponseWriter) bool {
					if path != "/v1/auth" {
						return false
					}
					if at = append(at, time.Now()); len(at) > 1 {
						return false
					}
					w.Header().Set("Retry-After", x.header)
					if form == "ours" {
						return problemAnswer(w, x.status, CodeUnavailable)
					}
					w.WriteHeader(x.status)
					return true
				}
				if x.otherURL {
					c.URLs = append(c.URLs, "https://127.0.0.1:2")
				}
				if _, err := c.Release(t.Context(), shop()); err != nil {
					t.Fatalf("%s, %s: %v", name, form, err)
				}
				if pause := at[1].Sub(at[0]); pause < x.least || pause > x.most {
					t.Errorf("%s, %s: asked again after %s, expected %s to %s", name, form, pause, x.least, x.most)
				}
				if n := strings.Count(fmt.Sprint(net.dials), "127.0.0.1:2"); x.otherURL && n < 4 {
					t.Errorf("%s: the other server was asked %d times meanwhile", name, n)
				}
			})
		}
	}
}

// TestReleaseAfterTrouble: every try has its own TEEKey, and a denial after any
// wait is the end.
func TestReleaseAfterTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := waiting(t)
		failures := 1
		s.change = func(path string, w http.ResponseWriter) bool {
			if strings.HasSuffix(path, "/key") && failures > 0 {
				failures--
				return problemAnswer(w, 503, CodeUnavailable)
			}
			return false
		}
		if k, err := c.Release(t.Context(), shop()); err != nil || k.Len() == 0 || len(s.keys) != 2 {
			t.Errorf("after one 503: %v, %d TEE keys for two tries", err, len(s.keys))
		}
		failures = 0
		s.change = func(path string, w http.ResponseWriter) bool {
			if failures++; failures < 20 {
				return problemAnswer(w, 503, CodeUnavailable)
			}
			return path == "/v1/attest" && problemAnswer(w, 403, CodeAttestationDenied)
		}
		start := time.Now()
		if _, err := c.Release(t.Context(), shop()); !errors.Is(err, ErrDenied) || time.Since(start) < time.Minute {
			t.Errorf("denied after an outage: %v after %s", err, time.Since(start))
		}
	})
}

// TestReleaseSaysWhyItWaits names each try that another follows, and leaves
// the last to the caller.
func TestReleaseSaysWhyItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c, _ := waiting(t)
		c.URLs, c.Wait = []string{"https://127.0.0.1:2", "https://127.0.0.1:3"}, time.Millisecond
		req := shop()
		var said []string
		req.OnRetry = func(why error, pause time.Duration) { said = append(said, fmt.Sprint(why, " ", pause)) }
		if _, err := c.Release(t.Context(), req); err == nil {
			t.Fatal("released by nobody")
		}
		if len(said) != 3 || !strings.Contains(said[0], "127.0.0.1:2") || !strings.HasSuffix(said[0], " 0s") ||
			!strings.Contains(said[1], "127.0.0.1:3") || !strings.HasSuffix(said[1], " 1ms") || !strings.Contains(said[2], "refused") {
			t.Errorf("said %q, expected each failed try but the last", said)
		}
	})
}
