package command

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/secret"
)

// witnessed is a store whose log a directory witnesses, and the configuration for
// both.
func witnessed(t *testing.T) (dir, token, config, seen string) {
	t.Helper()
	seen = t.TempDir()
	dir, token, config = storeAndConfig(t, fmt.Sprintf("[[witness]]\nname = \"elsewhere\"\nurl = \"file://%s\"\n", seen))
	return dir, token, config, seen
}

// storeAndConfig is a new store, in a file or a database for tests (databasetest), its
// data directory and the configuration that names both.
func storeAndConfig(t *testing.T, more string) (dir, token, config string) {
	t.Helper()
	dir, config = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "config.toml")
	if databasetest.OnPostgres() {
		more = fmt.Sprintf("database = %q\n%s", databasetest.Place(t), more)
	}
	writeConfig(t, config, dir, more)
	return dir, strings.TrimSpace(mustRun(t, "init", "--config", config, "--name", "kbs.example", "--name", "192.0.2.7")), config
}

func writeConfig(t *testing.T, path, dir, more string) {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, "data = %q\nwitness_interval = \"1s\"\n%s", dir, more), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readyz is what the server at url says, status and body.
func readyz(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	r, err := client.Get(url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// serveUntil starts a server, has use do something, and ends it.
func serveUntil(t *testing.T, config string, use func(url string, log *buffer)) {
	t.Helper()
	log := new(buffer)
	cmd, url := processTo(t, log, nil, "--config", config)
	use(url, log)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("serve: %v\n%s", err, log)
	}
}

// awaitWitnessed waits until the directory has a checkpoint of more than size
// entries, and returns its size.
func awaitWitnessed(t *testing.T, seen string, size int64) int64 {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var last int64
		files, err := filepath.Glob(filepath.Join(seen, "*.jsonl"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files %v, %v", files, err)
		}
		origin := strings.NewReplacer("_", "/", ".jsonl", "").Replace(filepath.Base(files[0]))
		err = witness.File{Dir: seen}.Each(origin, func(note []byte) error {
			var origin string
			_, err := fmt.Sscanf(string(note), "%s\n%d\n", &origin, &last)
			return err
		})
		if err == nil && last > size {
			return last
		}
		if time.Now().After(deadline) {
			t.Fatalf("the witness has seen %d entries: %v", last, err)
		}
	}
}

// keepStore keeps a copy of the store that config names; putBack puts it in its
// place.
func keepStore(t *testing.T, config string) (putBack func()) {
	t.Helper()
	var cfg Config
	if err := cfg.read(config); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), storeName)
	if err := cfg.withStore(t.Context(), secret.Bytes{}, func(s *store.DB) error { return s.Snapshot(t.Context(), path) }); err != nil {
		t.Fatal(err)
	}
	if databasetest.OnPostgres() {
		return func() { putIntoDatabase(t, config, cfg.Database, path) }
	}
	return func() {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range storeFiles() {
			os.Remove(inDir(cfg.Data, name))
		}
		if err := os.WriteFile(inDir(cfg.Data, storeName), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// putIntoDatabase puts the store in a file into a database, which config names
// from then on instead of the one before.
func putIntoDatabase(t *testing.T, config, before, path string) {
	t.Helper()
	place := databasetest.Place(t)
	s, err := store.Open(t.Context(), path, store.Options{Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CopyToPostgres(t.Context(), database.Postgres{DSN: place}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), strconv.Quote(before), strconv.Quote(place), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRestoredStoreIsNoticed: an old copy of the whole store, put back, serves
// nobody until the operator says that it may.
func TestRestoredStoreIsNoticed(t *testing.T) {
	t.Parallel()
	dir, token, config, seen := witnessed(t)
	serveUntil(t, config, func(url string, log *buffer) {
		if status, _ := readyz(t, url); status != http.StatusServiceUnavailable || !strings.Contains(log.String(), "audit introduce --witness elsewhere") {
			t.Errorf("with a witness that knows nothing: readyz %d\n%s", status, log)
		}
	})
	if out := mustRun(t, "audit", "introduce", "--config", config); out != "elsewhere\n" {
		t.Errorf("introduce prints %q", out)
	}
	serveUntil(t, config, func(url string, log *buffer) {
		if status, body := readyz(t, url); status != http.StatusOK {
			t.Fatalf("readyz %d %s\n%s", status, body, log)
		}
	})
	putBack := keepStore(t, config)
	last := awaitWitnessed(t, seen, 0)
	serveUntil(t, config, func(url string, _ *buffer) {
		if _, err := admin(t, dir, url, token).Register(t.Context(), registration("a", 1)); err != nil {
			t.Fatal(err)
		}
		awaitWitnessed(t, seen, last)
	})
	putBack()
	if out, _, err := run(t.Context(), "audit", "verify", "--config", config); err == nil || !strings.Contains(err.Error(), "witness elsewhere has ") {
		t.Errorf("audit verify prints %q, %v", out, err)
	}
	serveUntil(t, config, func(url string, log *buffer) {
		status, body := readyz(t, url)
		if status != http.StatusServiceUnavailable || !strings.Contains(body, "audit log is not what its witnesses have seen") {
			t.Errorf("after an old copy was put back: readyz %d %s", status, body)
		}
		// In another database it is another configuration, and so has an entry more.
		if s := log.String(); !regexp.MustCompile(`witness elsewhere: the audit log is (behind what|not the one that) a witness has seen`).MatchString(s) || !strings.Contains(s, "accept-rollback") {
			t.Errorf("the log says\n%s", s)
		}
		// The operator goes on, and the server that runs notices.
		if out := mustRun(t, "audit", "accept-rollback", "--config", config, "--reason", "disk lost"); !regexp.MustCompile(`^ccrun/attest-server/[0-9a-f]{16}/1\n$`).MatchString(out) {
			t.Errorf("accept-rollback prints %q", out)
		}
		log.await(t, "the audit log is what its witnesses have seen")
		if status, body := readyz(t, url); status != http.StatusOK {
			t.Errorf("after the operator has accepted: readyz %d %s\n%s", status, body, log)
		}
	})
	if out, log, err := run(t.Context(), "audit", "verify", "--config", config); err != nil || !strings.Contains(log, "the tree over the entries is that of") {
		t.Errorf("audit verify of the new log: %q, %q, %v", out, log, err)
	}
	if out := mustRun(t, "audit", "export", "--config", config); !strings.Contains(out, `"action":"audit.rollback"`) || !strings.Contains(out, "disk lost; witness elsewhere: the audit log is ") {
		t.Errorf("the audit log says\n%s", out)
	}
	if _, _, err := run(t.Context(), "audit", "accept-rollback", "--config", config, "--reason", "again"); err == nil || !strings.Contains(err.Error(), "there is no rollback to accept") {
		t.Errorf("accepted without a rollback: %v", err)
	}
}

// TestServersWitnessOneAnother: a server's log is cosigned by another server,
// and by `attest-server witness`.
func TestServersWitnessOneAnother(t *testing.T) {
	dir, token := initDir(t)
	key := strings.TrimSpace(mustRun(t, "audit", "key", "--data", dir))

	ctx, end := context.WithCancel(t.Context())
	defer end()
	var out, log buffer
	ended := make(chan error, 1)
	state := filepath.Join(t.TempDir(), "state")
	go func() {
		ended <- runTo(ctx, &out, &log, "witness", "--data", state, "--name", "alone", "--log", key, "--listen", "127.0.0.1:0")
	}()
	out.await(t, "http://")
	alone := strings.Fields(out.String()) // key, URL

	peerDir, _ := initDir(t)
	peerConfig := filepath.Join(t.TempDir(), "peer.toml")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if err := os.WriteFile(peerConfig, fmt.Appendf(nil, "data = %q\nwitness_listen = %q\nwitness_name = \"peer\"\nwitness_logs = [%q]\n", peerDir, address, key), 0o600); err != nil {
		t.Fatal(err)
	}
	peerLog := new(buffer)
	processTo(t, peerLog, nil, "--config", peerConfig)
	peerLog.await(t, "witnessing")
	peerKey := regexp.MustCompile(`key=(\S+)`).FindStringSubmatch(peerLog.String())[1]

	config := filepath.Join(t.TempDir(), "config.toml")
	writeConfig(t, config, dir, fmt.Sprintf("[[witness]]\nname = \"alone\"\nurl = %q\nkey = %q\n[[witness]]\nname = \"peer\"\nurl = \"https://%s\"\nkey = %q\nca = %q\n",
		alone[1], alone[0], address, strings.Trim(peerKey, `"`), filepath.Join(peerDir, caName)))
	if out := mustRun(t, "audit", "introduce", "--config", config); out != "alone\npeer\n" {
		t.Fatalf("introduce prints %q", out)
	}
	serveUntil(t, config, func(url string, log *buffer) {
		if status, body := readyz(t, url); status != http.StatusOK {
			t.Fatalf("readyz %d %s\n%s", status, body, log)
		}
		if _, err := admin(t, dir, url, token).Register(t.Context(), registration("a", 1)); err != nil {
			t.Fatal(err)
		}
	})
	end()
	if err := <-ended; err != nil {
		t.Errorf("witness: %v", err)
	}
	if out := mustRun(t, "audit", "key", "--data", dir); strings.TrimSpace(out) != key {
		t.Errorf("the key was %s and is %s", key, out)
	}
}

// TestAuditVerifySeesTheTree: what the store keeps of the tree, its checkpoints,
// and those of a witness's directory are held against the entries.
func TestAuditVerifySeesTheTree(t *testing.T) {
	dir, token, config, seen := witnessed(t)
	mustRun(t, "audit", "introduce", "--config", config)
	serveUntil(t, config, func(url string, _ *buffer) {
		for i := range 3 {
			if _, err := admin(t, dir, url, token).Register(t.Context(), registration(fmt.Sprint("w", i), i+1)); err != nil {
				t.Fatal(err)
			}
		}
	})
	verify := func() (string, error) {
		_, log, err := run(t.Context(), "audit", "verify", "--config", config)
		return log, err
	}
	if log, err := verify(); err != nil || !regexp.MustCompile(`is that of [3-9] checkpoints`).MatchString(log) {
		t.Fatalf("verify: %q, %v", log, err)
	}
	files, err := filepath.Glob(filepath.Join(seen, "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(good), "\n")
	for name, b := range map[string]string{
		"forged":        strings.Replace(lines[0], "\\n1", "\\n2", 1),
		"no record":     "{\"x\":1}\n",
		"not a note":    "{\"checkpoint\":\"x\"}\n",
		"another log's": strings.ReplaceAll(lines[0], "ccrun/attest-server/", "ccrun/attest-server/0"),
	} {
		if b == lines[0] {
			t.Fatalf("%s: nothing was changed in %s", name, lines[0])
		}
		if err := os.WriteFile(files[0], []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(); err == nil || !strings.Contains(err.Error(), "witness elsewhere") {
			t.Errorf("%s: %v", name, err)
		}
	}
	os.Remove(files[0])
	if _, err := verify(); !errors.Is(err, witness.ErrNothing) {
		t.Errorf("a witness without its file: %v", err)
	}
	if err := os.WriteFile(files[0], good, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, storeName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, edit := range []string{
		"INSERT INTO audit_tree(level, n, hash) VALUES(1, 0, zeroblob(32))", // of entries that are not there
		"UPDATE audit_tree SET hash = zeroblob(3)",
		"DELETE FROM audit_tree; UPDATE meta SET value = CAST('x' AS BLOB) WHERE name = 'audit witnessed'",
	} {
		if _, err := db.Exec(edit); err != nil {
			t.Fatal(err)
		}
		if _, err := verify(); !errors.Is(err, store.ErrTampered) {
			t.Errorf("%s: %v", edit, err)
		}
	}
}

// TestWitnessesAreReachedSafely: nobody on the way can answer for a witness.
func TestWitnessesAreReachedSafely(t *testing.T) {
	signer, err := checkpoint.WitnessSigner("w.example.com", ed25519.NewKeyFromSeed(make([]byte, 32)), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	key := signer.Verifier().String()
	for url, good := range map[string]bool{
		"https://witness.example.com/x": true, "http://127.0.0.1:8444": true, "http://[::1]:8444": true, "http://localhost:1": true,
		"http://witness.example.com": false, "http://192.0.2.7:8444": false, "http://127.0.0.1.example.com": false, "http://localhost.example.com": false,
		"http:///x": false, "ftp://127.0.0.1": false, "https://user:pw@witness.example.com": false, "file://host/x": false, "file:x": false,
	} {
		for _, k := range []string{"", key} {
			if strings.HasPrefix(url, "file") && k != "" {
				continue
			}
			if _, err := openWitnesses([]WitnessConfig{{URL: url, Key: k}}, false); (err == nil) != good {
				t.Errorf("%s, key %q: %v", url, k, err)
			}
		}
	}
}
