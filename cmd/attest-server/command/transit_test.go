package command

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/masterkey/transit/transittest"
	"github.com/ccrun/ccrun/attest-server/store"
)

// transitConfig is a configuration with [transit], and the token's file.
func transitConfig(t *testing.T, e *transittest.Engine, data string) (config, token string) {
	t.Helper()
	dir := t.TempDir()
	config, token = filepath.Join(dir, "attest-server.toml"), filepath.Join(dir, "token")
	text := fmt.Sprintf("data = %q\nlisten = \"127.0.0.1:0\"\n[transit]\naddress = %q\nkey = %q\nnamespace = %q\nca = %q\ntoken_file = %q\n",
		data, e.URL, transittest.Key, transittest.Namespace, e.CAFile, token)
	for path, content := range map[string]string{config: text, token: e.Token()} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config, token
}

func masterKeyFile(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(inDir(dir, masterkey.Name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTransit: from init on the key is in the data directory in wrapped form
// only, and whoever cannot have it unwrapped does not start.
func TestTransit(t *testing.T) {
	e := transittest.New(t)
	dir := filepath.Join(t.TempDir(), "data")
	config, tokenFile := transitConfig(t, e, dir)
	token := strings.TrimSpace(mustRun(t, "init", "--config", config, "--name", "127.0.0.1"))
	if f := masterKeyFile(t, dir); !strings.HasPrefix(f, `{"version":1,"transit":"vault:v1:`) {
		t.Fatalf("master-key holds %q", f)
	}
	url, stop := serve(t, "--config", config)
	if _, err := admin(t, dir, url, token).Register(t.Context(), registration("a", 1)); err != nil {
		t.Error(err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	mustRun(t, "audit", "verify", "--config", config)

	// The transit key is rotated, the master key wrapped anew, the old version retired.
	e.Rotate()
	mustRun(t, "master-key", "rewrap", "--config", config)
	e.Retire(2)
	if f := masterKeyFile(t, dir); !strings.Contains(f, "vault:v2:") {
		t.Errorf("after rewrap: %q", f)
	}
	url, stop = serve(t, "--config", config)
	if created, err := admin(t, dir, url, token).Register(t.Context(), registration("a", 1)); err != nil || created {
		t.Errorf("after rewrap: %v, %v", created, err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}

	refuses := func(name, want string) {
		t.Helper()
		if _, _, err := run(t.Context(), "serve", "--config", config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", name, err, want)
		}
	}
	good := masterKeyFile(t, dir)
	if err := os.WriteFile(tokenFile, []byte("hvs.stale"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses("wrong token", "403")
	if err := os.WriteFile(tokenFile, []byte(e.Token()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "no [transit]") {
		t.Errorf("without the section: %v", err)
	}
	e.Seal(true)
	refuses("sealed engine", "503")
	e.Seal(false)
	other := filepath.Join(t.TempDir(), "other")
	mustRun(t, "init", "--config", config, "--data", other)
	if err := os.WriteFile(inDir(dir, masterkey.Name), []byte(masterKeyFile(t, other)), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses("another store's key", store.ErrWrongMasterKey.Error())
	if err := os.WriteFile(inDir(dir, masterkey.Name), []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Stop()
	refuses("engine gone", "refused")
}

// TestRotateFromFileToTransit moves a store's key under a server that was
// started without [transit] and goes on, and then back.
func TestRotateFromFileToTransit(t *testing.T) {
	e := transittest.New(t)
	dir, token := initDir(t)
	config, _ := transitConfig(t, e, dir)
	url, stop := serve(t, "--data", dir)
	c := admin(t, dir, url, token)
	if _, err := c.Register(t.Context(), registration("a", 1)); err != nil {
		t.Fatal(err)
	}
	clear := masterKeyFile(t, dir)
	mustRun(t, "master-key", "rotate", "--config", config)
	if f := masterKeyFile(t, dir); !strings.Contains(f, "vault:v1:") {
		t.Fatalf("after rotate: %q", f)
	}
	if _, err := c.Register(t.Context(), registration("b", 2)); err != nil {
		t.Errorf("the running server does not follow: %v", err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	url, stop = serve(t, "--config", config)
	c = admin(t, dir, url, token)
	for n, id := range []string{"a", "b"} {
		if created, err := c.Register(t.Context(), registration(id, n+1)); err != nil || created {
			t.Errorf("%s after restart: %v, %v", id, created, err)
		}
	}
	if _, err := os.Stat(inDir(dir, masterkey.NextName)); err == nil {
		t.Error("the start left " + masterkey.NextName)
	}
	// Again with transit, which the server asks itself now.
	mustRun(t, "master-key", "rotate", "--config", config)
	if _, err := c.Register(t.Context(), registration("c", 3)); err != nil {
		t.Errorf("the running server does not follow within transit: %v", err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	if f := masterKeyFile(t, dir); f == clear {
		t.Error("the key in clear is back")
	}
}

// TestRotateSurvivesTransitGone: the engine fails after the store was sealed
// anew. The server goes on, starts again, and the rotation can be ended.
func TestRotateSurvivesTransitGone(t *testing.T) {
	e := transittest.New(t)
	dir, token := initDir(t)
	config, _ := transitConfig(t, e, dir)
	url, stop := serve(t, "--data", dir)
	e.Seal(true)
	if _, _, err := run(t.Context(), "master-key", "rotate", "--config", config); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Fatalf("rotate: %v", err)
	}
	if _, err := admin(t, dir, url, token).Register(t.Context(), registration("a", 1)); err != nil {
		t.Error(err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	_, stop = serve(t, "--data", dir)
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	e.Seal(false)
	mustRun(t, "master-key", "rotate", "--config", config)
	_, stop = serve(t, "--config", config)
	if _, err := stop(); err != nil {
		t.Error(err)
	}
}

// TestMasterKeyToPipe: init and rotate hand the key out on standard output, as
// for `systemd-creds encrypt -`, and leave it nowhere on disk. What systemd
// would pass is a credentials directory.
func TestMasterKeyToPipe(t *testing.T) {
	dir, tokenFile := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "token")
	if _, _, err := run(t.Context(), "init", "--data", dir, "--master-key-out", "-"); err == nil || !strings.Contains(err.Error(), "--token-out") {
		t.Errorf("both to standard output: %v", err)
	}
	first := mustRun(t, "init", "--data", dir, "--master-key-out", "-", "--token-out", tokenFile)
	credentials := t.TempDir()
	pass := func(k string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(credentials, masterkey.Name), []byte(k), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nowhere := func(k string) {
		t.Helper()
		if len(k) != masterkey.Size {
			t.Fatalf("key of %d bytes", len(k))
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) < 5 {
			t.Fatalf("%v, %v", entries, err)
		}
		for _, e := range entries {
			if b, err := os.ReadFile(inDir(dir, e.Name())); err != nil || bytes.Contains(b, []byte(k)) {
				t.Errorf("%s holds the key: %v", e.Name(), err)
			}
		}
	}
	nowhere(first)
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "reading master key") {
		t.Errorf("without a credential: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	pass(first)
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	url, stop := serve(t, "--data", dir)
	c := admin(t, dir, url, strings.TrimSpace(string(token)))
	if _, _, err := run(t.Context(), "master-key", "rotate", "--data", dir); err == nil || !strings.Contains(err.Error(), "--master-key-out") {
		t.Errorf("rotate that would leave the key in the directory: %v", err)
	}
	second := mustRun(t, "master-key", "rotate", "--data", dir, "--master-key-out", "-")
	nowhere(second)
	nowhere(first)
	if first == second {
		t.Fatal("the same key again")
	}
	if _, err := c.Register(t.Context(), registration("a", 1)); err != nil {
		t.Errorf("the running server does not follow: %v", err)
	}
	// The pipe broke: run again, it is the same key.
	if again := mustRun(t, "master-key", "rotate", "--data", dir, "--master-key-out", "-"); again != second {
		t.Error("run again, rotate made another key")
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	for _, k := range []string{first, second} { // before and after the credential is replaced
		pass(k)
		url, stop = serve(t, "--data", dir)
		if created, err := admin(t, dir, url, strings.TrimSpace(string(token))).Register(t.Context(), registration("a", 1)); err != nil || created {
			t.Errorf("%v, %v", created, err)
		}
		if _, err := stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(inDir(dir, masterkey.NextName)); err == nil {
		t.Error("the start left " + masterkey.NextName)
	}
	pass(first)
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), store.ErrWrongMasterKey.Error()) {
		t.Errorf("the key before the rotation: %v", err)
	}
	pass(string(bytes.Repeat([]byte{1}, 31)))
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "32 bytes") {
		t.Errorf("31 bytes: %v", err)
	}
}

// TestRotatePrepared: two servers with data directories of their own share a
// store. The next key is copied, sealed as it is; then both follow the
// rotation, and the second starts again with the old key.
func TestRotatePrepared(t *testing.T) {
	dir, token := initDir(t)
	second := t.TempDir()
	names := []string{masterkey.Name, caName, serverName, serverKeyName}
	copyFile := func(name string) {
		t.Helper()
		b, err := os.ReadFile(inDir(dir, name))
		if err == nil {
			err = os.WriteFile(inDir(second, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range names {
		copyFile(n)
	}
	if err := os.Symlink(inDir(dir, storeName), inDir(second, storeName)); err != nil {
		t.Fatal(err)
	}
	url1, stop1 := serve(t, "--data", dir)
	url2, stop2 := serve(t, "--data", second)
	old := masterKeyFile(t, dir)
	mustRun(t, "master-key", "rotate", "--data", dir, "--prepare")
	if masterKeyFile(t, dir) != old {
		t.Fatal("preparing replaced the key")
	}
	next, err := os.ReadFile(inDir(dir, masterkey.NextName))
	if err != nil {
		t.Fatal(err)
	}
	copyFile(masterkey.NextName)
	mustRun(t, "master-key", "rotate", "--data", dir)
	fresh := masterKeyFile(t, dir)
	if fresh == old || bytes.Contains(next, []byte(fresh)) {
		t.Error("the prepared file holds the next key in clear, or is none")
	}
	for n, url := range []string{url1, url2} {
		if _, err := admin(t, dir, url, token).Register(t.Context(), registration(fmt.Sprint("w", n), n)); err != nil {
			t.Errorf("server %d does not follow: %v", n+1, err)
		}
	}
	for _, stop := range []func() (string, error){stop1, stop2} {
		if _, err := stop(); err != nil {
			t.Error(err)
		}
	}
	_, stop2 = serve(t, "--data", second) // the old key leads to the new one
	if _, err := stop2(); err != nil {
		t.Error(err)
	}
	copyFile(masterkey.Name)
	_, stop2 = serve(t, "--data", second)
	if _, err := stop2(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(inDir(second, masterkey.NextName)); err == nil {
		t.Error("the start left " + masterkey.NextName)
	}
}

// TestBackupWithTransit: the wrapped key is in the backup, which only the
// engine makes worth something.
func TestBackupWithTransit(t *testing.T) {
	e := transittest.New(t)
	dir := filepath.Join(t.TempDir(), "data")
	config, _ := transitConfig(t, e, dir)
	token := strings.TrimSpace(mustRun(t, "init", "--config", config))
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity, file := filepath.Join(t.TempDir(), "id"), filepath.Join(t.TempDir(), "backup.age")
	if err := os.WriteFile(identity, []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "backup", "--config", config, "--recipient", id.Recipient().String(), "--output", file)
	restored := filepath.Join(t.TempDir(), "restored")
	if _, _, err := run(t.Context(), "restore", "--data", restored, "--identity", identity, file); err == nil || !strings.Contains(err.Error(), "no [transit]") {
		t.Errorf("restored without the engine: %v", err)
	}
	if _, err := os.Stat(restored); err == nil {
		t.Error("a failed restore left something")
	}
	mustRun(t, "restore", "--config", config, "--data", restored, "--identity", identity, file)
	if a, b := masterKeyFile(t, dir), masterKeyFile(t, restored); a != b || !strings.Contains(a, "vault:v1:") {
		t.Errorf("restored key file %q, was %q", b, a)
	}
	url, _ := serve(t, "--config", config, "--data", restored)
	if _, err := admin(t, restored, url, token).List(t.Context()); err != nil {
		t.Error(err)
	}
}
