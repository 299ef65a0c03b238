package command

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
)

// TestDrain: a request that SIGTERM meets halfway is answered, and kept; new
// connections are refused meanwhile.
func TestDrain(t *testing.T) {
	dir, token := initDir(t)
	cmd, url := process(t, nil, "--data", dir)
	body, err := json.Marshal(registration("w1", 1))
	if err != nil {
		t.Fatal(err)
	}
	conf := tlsRoots(admin(t, dir, url, token).RootCAs)
	conf.NextProtos = []string{"http/1.1"}
	address := strings.TrimPrefix(url, "https://")
	conn, err := tls.Dial("tcp", address, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /v1/workloads/w1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		token, len(body))
	answers := bufio.NewReader(conn)
	// "Continue" is sent when the handler begins to read.
	if resp, err := http.ReadResponse(answers, nil); err != nil || resp.StatusCode != http.StatusContinue {
		t.Fatalf("expecting to continue: %v, %v", resp, err)
	}
	if _, err := conn.Write(body[:len(body)/2]); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	refused := false
	for deadline := time.Now().Add(2 * time.Minute); !refused && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	if !refused {
		t.Error("new connections are taken after SIGTERM")
	}
	if _, err := conn.Write(body[len(body)/2:]); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("the request under way: %v, %v", resp, err)
	}
	conn.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after draining: %v", err)
	}
	url, _ = serve(t, "--data", dir)
	if created, err := admin(t, dir, url, token).Register(t.Context(), registration("w1", 1)); err != nil || created {
		t.Errorf("what was acknowledged while draining is lost: %v, %v", created, err)
	}
}

// TestTLSVersions: 1.3 alone, with a hybrid post-quantum key exchange for who
// offers one and a classical one for who does not.
func TestTLSVersions(t *testing.T) {
	dir, token := initDir(t)
	url, _ := serve(t, "--data", dir)
	roots := admin(t, dir, url, token).RootCAs
	dial := func(conf *tls.Config) (tls.ConnectionState, error) {
		conf.RootCAs = roots
		conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), conf)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	if _, err := dial(&tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	for _, want := range []tls.CurveID{tls.X25519MLKEM768, tls.X25519} {
		conf := &tls.Config{}
		if want == tls.X25519 {
			conf.CurvePreferences = []tls.CurveID{want}
		}
		if s, err := dial(conf); err != nil || s.Version != tls.VersionTLS13 || s.CurveID != want {
			t.Errorf("version %x, key exchange %v, %v, expected %v", s.Version, s.CurveID, err, want)
		}
	}
}

// TestReloadClients: SIGHUP gives and takes the roles of client certificates,
// also on a connection that stays open.
func TestReloadClients(t *testing.T) {
	dir, token := initDir(t)
	roots := admin(t, dir, "", token).RootCAs
	mine := clientCertificate(t, dir, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	config := filepath.Join(t.TempDir(), "c.toml")
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("")
	var log buffer
	cmd, url := processTo(t, &log, nil, "--data", dir, "--config", config)
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{mine}}}
	defer transport.CloseIdleConnections()
	status := func() int {
		t.Helper()
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", url+"/v1/workloads", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	becomes := func(what string, want int) {
		t.Helper()
		cmd.Process.Signal(syscall.SIGHUP)
		var got int
		for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if want == http.StatusOK {
				transport.CloseIdleConnections() // was made without a certificate
			}
			if got = status(); got == want {
				return
			}
		}
		t.Errorf("%s: %d, expected %d", what, got, want)
	}
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("before: %d", got)
	}
	allow := fmt.Sprintf("client_ca = %q\n[[clients]]\nsubject = \"CN=%%s\"\nrole = \"auditor\"\n", inDir(dir, caName))
	set(fmt.Sprintf(allow, "eye"))
	becomes("given", http.StatusOK)
	set("client_ca = 'x'")
	cmd.Process.Signal(syscall.SIGHUP)
	log.await(t, "keeping all that is in use")
	if got := status(); got != http.StatusOK {
		t.Errorf("a broken configuration took the role: %d", got)
	}
	set(fmt.Sprintf(allow, "other"))
	becomes("taken", http.StatusUnauthorized)
	if !reused {
		t.Error("the last request made a new connection: the test shows less than it says")
	}
}

// TestLogUnderJournald: journald stamps lines itself.
func TestLogUnderJournald(t *testing.T) {
	for stream, want := range map[string]bool{"": true, "8:1234": false} {
		t.Setenv("JOURNAL_STREAM", stream)
		var b buffer
		log, err := face.Program{Notice: "simulation"}.NewLog(&b, "info", "text")
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hello", "k", "v")
		log.Debug("unheard")
		line := b.String()
		if strings.Contains(line, "time=") != want || !strings.Contains(line, `level=INFO msg=hello notice=simulation k=v`) || strings.Contains(line, "unheard") {
			t.Errorf("JOURNAL_STREAM=%q: %s", stream, line)
		}
	}
}

// TestWatchdogStarves: systemd restarts a server whose store does not answer.
func TestWatchdogStarves(t *testing.T) {
	dir, _ := initDir(t)
	s, err := Config{Data: dir}.openStore(t.Context(), store.Options{Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "notify")
	pc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	t.Setenv("NOTIFY_SOCKET", sock)
	t.Setenv("WATCHDOG_USEC", "40000")
	log, err := face.Program{}.NewLog(io.Discard, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	go (&server{store: s, log: log}).watch(t.Context())
	fed := func(wait time.Duration) bool {
		pc.SetReadDeadline(time.Now().Add(wait))
		b := make([]byte, 64)
		n, err := pc.Read(b)
		return err == nil && string(b[:n]) == "WATCHDOG=1"
	}
	if !fed(2 * time.Minute) {
		t.Fatal("not fed while the store answers")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 5 { // what was on its way
		fed(50 * time.Millisecond)
	}
	if fed(300 * time.Millisecond) {
		t.Error("fed although the store does not answer")
	}
}
