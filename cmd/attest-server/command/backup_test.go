package command

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/hint"
)

// identityFile makes an age identity and returns its file and its recipient.
func identityFile(t *testing.T) (path, recipient string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(path, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, id.Recipient().String()
}

// TestBackupRemovesWhatKilledOnesLeft, and nothing of one that goes on.
func TestBackupRemovesWhatKilledOnesLeft(t *testing.T) {
	dir, _ := initDir(t)
	_, recipient := identityFile(t)
	left, busy := filepath.Join(dir, ".backup-left"), filepath.Join(dir, ".backup-busy")
	for _, path := range []string{left, busy} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, storeName), []byte("a copy"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other, err := lockDir(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustRun(t, "backup", "--data", dir, "--recipient", recipient, "--output", filepath.Join(t.TempDir(), "b.age"))
	all, _ := filepath.Glob(filepath.Join(dir, ".backup-*"))
	if len(all) != 1 || all[0] != busy {
		t.Errorf("there is %v, expected %s alone", all, busy)
	}
}

// TestBackupWhileServing takes a backup of a server under load; all that was
// acknowledged before must be in it, and a server must run on it.
func TestBackupWhileServing(t *testing.T) {
	dir, token := initDir(t)
	url, _ := serve(t, "--data", dir)
	c := admin(t, dir, url, token)
	if _, err := c.Register(t.Context(), registration("before", 0)); err != nil {
		t.Fatal(err)
	}
	identity, recipient := identityFile(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 20 {
			if _, err := c.Register(t.Context(), registration(fmt.Sprint("w", i), i+1)); err != nil {
				t.Error(err)
			}
		}
	})
	file := filepath.Join(t.TempDir(), "backup.age")
	mustRun(t, "backup", "--data", dir, "--recipient", recipient, "--output", file, "--with-master-key")
	wg.Wait()
	b, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(b, []byte("age-encryption.org/")) || bytes.Contains(b, []byte("SQLite")) {
		t.Fatalf("backup is not encrypted: %v", err)
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, ".backup-*")); len(entries) > 0 {
		t.Errorf("left over: %v", entries)
	}
	restored := filepath.Join(t.TempDir(), "restored")
	mustRun(t, "restore", "--data", restored, "--identity", identity, file)
	url, _ = serve(t, "--data", restored)
	if s, err := admin(t, restored, url, token).Get(t.Context(), "before"); err != nil || s.Registration.WorkloadID != "before" {
		t.Errorf("lost: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	dir, _ := initDir(t)
	identity, recipient := identityFile(t)
	other, _ := identityFile(t)
	file := filepath.Join(t.TempDir(), "backup.age")
	mustRun(t, "backup", "--data", dir, "--recipient", recipient, "--output", file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	foreignKey := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(foreignKey, bytes.Repeat([]byte("k"), masterkey.Size), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		backup   []byte
		identity string
		more     []string
	}{
		"another identity":    {whole, other, nil},
		"cut short":           {whole[:len(whole)-1], identity, nil},
		"cut at a chunk":      {whole[:len(whole)/2], identity, nil},
		"one bit flipped":     {flipped, identity, nil},
		"something behind it": {append(bytes.Clone(whole), 'x'), identity, nil},
		"empty":               {nil, identity, nil},
		"another master key":  {whole, identity, []string{"--master-key", foreignKey}},
		"no master key":       {whole, identity, nil},
	} {
		path, to := filepath.Join(t.TempDir(), "b"), filepath.Join(t.TempDir(), "data")
		if err := os.WriteFile(path, x.backup, 0o600); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"restore", "--data", to, "--identity", x.identity}, x.more...)
		if _, _, err := run(t.Context(), append(args, path)...); err == nil {
			t.Errorf("%s: restored", name)
		}
		if _, err := os.Stat(to); !os.IsNotExist(err) {
			t.Errorf("%s: something is left", name)
		}
	}
	before := snapshot(t, dir)
	if _, _, err := run(t.Context(), "restore", "--data", dir, "--identity", identity, file); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("over a data directory: %v", err)
	}
	if snapshot(t, dir) != before {
		t.Error("a refused restore changed the directory")
	}
	if _, _, err := run(t.Context(), "backup", "--data", dir, "--recipient", recipient, "--output", file); err == nil {
		t.Error("backup over a file")
	}
	if _, _, err := run(t.Context(), "backup", "--data", dir, "--recipient", "age1nonsense"); err == nil {
		t.Error("no recipient's backup")
	}
}

// TestRestoreWithoutMasterKey: a backup says whether it is worth anything by
// itself, and restore calls no success what has no key, or checks with the
// credential.
func TestRestoreWithoutMasterKey(t *testing.T) {
	dir, _ := initDir(t)
	identity, recipient := identityFile(t)
	file := filepath.Join(t.TempDir(), "backup.age")
	say := func(args ...string) (said string, err error) {
		_, said, err = run(t.Context(), args...)
		return said, err
	}
	if said, err := say("backup", "--data", dir, "--recipient", recipient, "--output", file); err != nil || !strings.Contains(said, "WITHOUT the master key") {
		t.Errorf("backup without the key says %q, %v", said, err)
	}
	if said, err := say("backup", "--data", dir, "--recipient", recipient, "--output", file+"2", "--with-master-key"); err != nil || !strings.Contains(said, "every secret") {
		t.Errorf("backup with the key says %q, %v", said, err)
	}
	to := func() string { return filepath.Join(t.TempDir(), "data") }
	_, _, err := run(t.Context(), "restore", "--data", to(), "--identity", identity, file)
	if err == nil || !strings.Contains(err.Error(), "no master key") || !strings.Contains(hint.Of(err), "--master-key") {
		t.Errorf("restored without a key: %v", err)
	}
	if said, err := say("restore", "--data", to(), "--identity", identity, "--without-master-key", file); err != nil || !strings.Contains(said, "WITHOUT a master key") {
		t.Errorf("restore --without-master-key says %q, %v", said, err)
	}
	if said, err := say("restore", "--data", to(), "--identity", identity, "--master-key", inDir(dir, masterkey.Name), file); err != nil || strings.Contains(said, "WITHOUT") {
		t.Errorf("restore --master-key says %q, %v", said, err)
	}
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	key, err := os.ReadFile(inDir(dir, masterkey.Name))
	if err == nil {
		err = os.WriteFile(filepath.Join(credentials, masterkey.Name), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if said, err := say("restore", "--data", to(), "--identity", identity, file); err != nil || !strings.Contains(said, "credential") {
		t.Errorf("restore with the key as credential says %q, %v", said, err)
	}
	if err := os.WriteFile(filepath.Join(credentials, masterkey.Name), bytes.Repeat([]byte("k"), masterkey.Size), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := say("restore", "--data", to(), "--identity", identity, file); err == nil {
		t.Error("restored although the credential is another key")
	}
}

// TestMasterKeyRotate changes the key under a running server.
func TestMasterKeyRotate(t *testing.T) {
	dir, token := initDir(t)
	url, stop := serve(t, "--data", dir)
	c := admin(t, dir, url, token)
	if _, err := c.Register(t.Context(), registration("a", 1)); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(inDir(dir, masterkey.Name))
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, "master-key", "rotate", "--data", dir)
	fresh, err := os.ReadFile(inDir(dir, masterkey.Name))
	if err != nil || bytes.Equal(old, fresh) {
		t.Fatalf("the key is the old one: %v", err)
	}
	if _, err := c.Register(t.Context(), registration("b", 2)); err != nil {
		t.Errorf("the running server does not follow: %v", err)
	}
	if created, err := c.Register(t.Context(), registration("a", 1)); err != nil || created {
		t.Errorf("the same again, whose key must be opened: %v, %v", created, err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	// Killed after the commit, before the rename.
	if err := os.Rename(inDir(dir, masterkey.Name), inDir(dir, masterkey.NextName)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inDir(dir, masterkey.Name), old, 0o600); err != nil {
		t.Fatal(err)
	}
	url, _ = serve(t, "--data", dir)
	if created, err := admin(t, dir, url, token).Register(t.Context(), registration("b", 2)); err != nil || created {
		t.Errorf("between commit and rename: %v, %v", created, err)
	}
	mustRun(t, "master-key", "rotate", "--data", dir)
	if got, err := os.ReadFile(inDir(dir, masterkey.Name)); err != nil || !bytes.Equal(got, fresh) {
		t.Errorf("the rotation that was begun was not ended: %v", err)
	}
}
