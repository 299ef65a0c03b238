package command

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

// Environment of this binary when it plays a process of a test.
const (
	asMain    = "ATTEST_SERVER_TEST_MAIN"
	asFloor   = "ATTEST_SERVER_TEST_FLOOR"
	simulated = "ATTEST_SERVER_TEST_SIMULATED" // directory of the simulated platform to trust
)

// TestMain is attest-server itself when a test starts it as a process.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asFloor) != "":
		os.Exit(floorMain(os.Args[1:]))
	case os.Getenv(asMain) != "":
		profile(os.Getenv("BENCH_PROFILE"))
		os.Exit(program().Main(os.Args))
	}
	os.Exit(servertest.Run(m))
}

func program() Program {
	return Program{Program: face.Program{Name: "attest-server"}, Verifiers: func(_ *cli.Context, e Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
		all, err := Production(e)
		if dir := os.Getenv(simulated); err == nil && dir != "" {
			all[kbs.Sample], err = sample.NewVerifier(dir)
		}
		return all, err
	}}
}

// buffer is a servertest.Buffer that can be waited for.
type buffer struct{ servertest.Buffer }

// await waits until a text is in b.
func (b *buffer) await(t testing.TB, text string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(b.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody says %q:\n%s", text, b.String())
		}
	}
}

// run runs a command line to its end. A server that ought to refuse, and says
// where it listens instead, is stopped: without an error, as by SIGTERM.
func run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, log buffer
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = runTo(ctx, writerFunc(func(p []byte) (int, error) {
		if bytes.HasPrefix(p, []byte("https://")) {
			cancel()
		}
		return out.Write(p)
	}), &log, args...)
	return out.String(), log.String(), err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func runTo(ctx context.Context, out, log io.Writer, args ...string) error {
	app := program().App()
	app.Writer, app.ErrWriter = out, log
	return app.RunContext(ctx, face.Intersperse(app, append([]string{"attest-server"}, args...)))
}

func mustRun(t testing.TB, args ...string) string {
	t.Helper()
	out, _, err := run(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out
}

func initDir(t testing.TB) (dir, token string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	return dir, strings.TrimSpace(mustRun(t, "init", "--data", dir, "--name", "kbs.example", "--name", "192.0.2.7"))
}

func registration(id string, n int) kbs.RegisterRequest {
	return kbs.RegisterRequest{
		DiskKey: []byte("disk key of " + id),
		Registration: kbs.Registration{
			Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384([]byte(id)), FooterDigest: kbs.Sum384([]byte("f" + id)),
			ReferenceValues: kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{
				{LaunchDigest: kbs.LaunchDigest{1, byte(n >> 8), byte(n), byte(n >> 16), byte(n >> 24)}, Profile: "p", CPUs: 1, MemoryMiB: 512},
			}},
		},
	}
}

func admin(t testing.TB, dir, url, token string) *kbs.AdminClient {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, caName))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no CA certificate")
	}
	return &kbs.AdminClient{URL: url, Token: secret.New([]byte(token)), RootCAs: roots, Timeout: time.Minute}
}

func TestInit(t *testing.T) {
	dir, token := initDir(t)
	for name, want := range map[string]os.FileMode{
		".": 0o700, "master-key": 0o600, "store.db": 0o600, "ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.pem": 0o644,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, expected mode %v", name, info.Mode(), err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 6 {
		t.Errorf("files: %v, %v", entries, err)
	}
	if !strings.HasPrefix(token, "ccrun_") || strings.ContainsAny(token, " \n") {
		t.Errorf("token %q", token)
	}
	pemBytes, err := os.ReadFile(filepath.Join(dir, serverName))
	if err != nil {
		t.Fatal(err)
	}
	if pins, err := kbs.PinsFromPEM(pemBytes); err != nil || len(pins) != 2 {
		t.Errorf("server.pem holds %d certificates, expected leaf and CA: %v", len(pins), err)
	}
	before := snapshot(t, dir)
	if _, _, err := run(t.Context(), "init", "--data", dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("init again: %v", err)
	}
	if after := snapshot(t, dir); after != before {
		t.Error("init again changed files")
	}
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&s, "%s %x\n", e.Name(), kbs.Sum384(b))
	}
	return s.String()
}

func TestInitWritesTokenAndMasterKeyElsewhere(t *testing.T) {
	base := t.TempDir()
	tokenFile, keyFile, dir := filepath.Join(base, "token"), filepath.Join(base, "master-key"), filepath.Join(base, "data")
	if err := os.Mkdir(dir, 0o755); err != nil { // as systemd's StateDirectory= does
		t.Fatal(err)
	}
	if out := mustRun(t, "init", "--data", dir, "--token-out", tokenFile, "--master-key-out", keyFile); out != "" {
		t.Errorf("the token was printed too: %q", out)
	}
	for _, f := range []string{tokenFile, keyFile} {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "master-key")); err == nil {
		t.Error("the master key is in the data directory too")
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--check-config"); err == nil {
		t.Error("serve without master key")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", base)
	mustRun(t, "serve", "--data", dir, "--check-config")
}

func TestFailedInitLeavesNothing(t *testing.T) {
	base := t.TempDir()
	taken := filepath.Join(base, "taken")
	if err := os.WriteFile(taken, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"token file exists":      {"--token-out", taken},
		"master key file exists": {"--master-key-out", taken},
		"token file nowhere":     {"--token-out", filepath.Join(base, "no", "such", "dir")},
		"bad name":               {"--name", "é.example"},
	} {
		dir := filepath.Join(base, "data")
		if _, _, err := run(t.Context(), append([]string{"init", "--data", dir}, args...)...); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: %s is left", name, dir)
			os.RemoveAll(dir)
		}
	}
	if b, _ := os.ReadFile(taken); string(b) != "precious" {
		t.Error("a file was overwritten")
	}
}

func TestServeRefuses(t *testing.T) {
	dir, _ := initDir(t)
	other, _ := initDir(t)
	conf := func(text string) string {
		f := filepath.Join(t.TempDir(), "c.toml")
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for name, x := range map[string]struct {
		args []string
		want string // in the error
	}{
		"unknown dialect":      {[]string{"--dialect", "x"}, "expected native"},
		"dialect in a list":    {[]string{"--dialect", "native,truste"}, "expected native"},
		"empty dialect":        {[]string{"--dialect", "native,"}, "expected native"},
		"argument":             {[]string{"x"}, "unexpected argument"},
		"no data directory":    {[]string{"--data", "/nonexistent"}, "master key"},
		"certificate alone":    {[]string{"--tls-cert", "x"}, "both or neither"},
		"another's key":        {[]string{"--tls-cert", filepath.Join(dir, serverName), "--tls-key", filepath.Join(other, serverKeyName)}, "TLS identity"},
		"unknown field":        {[]string{"--config", conf("listne = ':1'")}, `unknown field "listne"`},
		"wrong type":           {[]string{"--config", conf("max_sessions = 'x'")}, "max_sessions"},
		"life out of range":    {[]string{"--config", conf("session_life = '1ms'")}, "session_life"},
		"no TOML":              {[]string{"--config", conf("}{")}, "configuration"},
		"missing config":       {[]string{"--config", "/nonexistent"}, "configuration"},
		"log level":            {[]string{"--log-level", "loud"}, "--log-level"},
		"address in use":       {[]string{"--listen", occupied(t)}, "listening"},
		"missing endorsements": {[]string{"--endorsements", "/nonexistent"}, "endorsements"},
	} {
		_, _, err := run(t.Context(), append([]string{"serve", "--data", dir}, x.args...)...)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, expected %q", name, err, x.want)
		}
	}
	key := filepath.Join(dir, "master-key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--check-config"); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Errorf("master key readable by all: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(other, "master-key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--check-config"); err == nil || !strings.Contains(err.Error(), "does not belong to this store") {
		t.Errorf("wrong master key: %v", err)
	}
}

func occupied(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// serve runs a server within the test and returns its URL; stop ends it as
// SIGTERM does.
func serve(t *testing.T, args ...string) (url string, stop func() (log string, err error)) {
	t.Helper()
	return listening(t, append([]string{"serve"}, args...)...)
}

// listening runs a command that prints its URL, and listens until stopped.
func listening(t *testing.T, args ...string) (url string, stop func() (log string, err error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out, log buffer
	done := make(chan error, 1)
	go func() {
		done <- runTo(ctx, &out, &log, append(args, "--listen", "127.0.0.1:0")...)
	}()
	deadline := time.Now().Add(2 * time.Minute)
	for !strings.Contains(out.String(), "\n") {
		select {
		case err := <-done:
			t.Fatalf("%s: %v\n%s", args[0], err, log.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("serve says nothing\n%s", log.String())
		}
	}
	var once sync.Once
	var err error
	stop = func() (string, error) {
		once.Do(func() { cancel(); err = <-done })
		return log.String(), err
	}
	t.Cleanup(func() { stop() })
	return strings.TrimSpace(out.String()), stop
}

func TestServe(t *testing.T) {
	dir, token := initDir(t)
	url, stop := serve(t, "--data", dir, "--log-level", "debug")
	c := admin(t, dir, url, token)
	if created, err := c.Register(t.Context(), registration("w1", 1)); err != nil || !created {
		t.Fatalf("Register = %v, %v", created, err)
	}
	made := strings.TrimSpace(mustRun(t, "token", "create", "--data", dir, "--role", "auditor", "--name", "x", "--expires", "1h"))
	if _, err := admin(t, dir, url, made).Get(t.Context(), "w1"); err != nil {
		t.Errorf("a token made while the server runs: %v", err)
	}
	id := strings.Split(made, "_")[1]
	if out := mustRun(t, "token", "ls", "--data", dir); !strings.Contains(out, id) || strings.Contains(out, made) {
		t.Errorf("token ls:\n%s", out)
	}
	mustRun(t, "token", "revoke", "--data", dir, id)
	if _, err := admin(t, dir, url, made).Get(t.Context(), "w1"); err == nil {
		t.Error("a revoked token still works")
	}
	h1 := admin(t, dir, url, token).RootCAs
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: tlsRoots(h1)}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("readyz: %s %s", resp.Proto, resp.Status)
	}
	log, err := stop()
	if err != nil {
		t.Errorf("stop: %v", err)
	}
	for _, secret := range []string{token, made, "disk key of w1"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestAudit(t *testing.T) {
	dir, token := initDir(t)
	url, stop := serve(t, "--data", dir)
	c := admin(t, dir, url, token)
	head := strings.TrimSpace(mustRun(t, "audit", "verify", "--data", dir))
	if _, err := c.Register(t.Context(), registration("w1", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	page, err := c.Audit(t.Context(), 2)
	if err != nil || len(page.Entries) != 3 || page.Next != 0 {
		t.Fatalf("Audit = %+v, %v", page, err)
	}
	for i, want := range []string{"workload.register", "workload.revoke", "workload.remove"} {
		if e := page.Entries[i]; e.Action != want || e.Object != "w1" || e.Actor != "token/"+strings.Split(token, "_")[1] {
			t.Errorf("entry %+v, expected %s", e, want)
		}
	}
	if _, err := stop(); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, "audit", "verify", "--data", dir, "--expect", head); !strings.HasPrefix(out, "5:") {
		t.Errorf("verify: %s", out)
	}
	if _, _, err := run(t.Context(), "audit", "verify", "--data", dir, "--expect", "5:"+strings.Repeat("0", 64)); err == nil {
		t.Error("a head that is not in the chain was found")
	}
	if _, _, err := run(t.Context(), "audit", "verify", "--data", dir, "--expect", "x"); err == nil {
		t.Error("--expect x")
	}
	if out := mustRun(t, "audit", "export", "--data", dir); strings.Count(out, "\n") != 5 || strings.Contains(out, token) || strings.Contains(out, "disk key of") {
		t.Errorf("export:\n%s", out)
	}
}
