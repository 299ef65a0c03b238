package command

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/ccrun/ccrun/hint"
)

// TestCAOffline: the CA's key is moved away after init. The server runs,
// reloads and is backed up without it; the certificate is renewed where the key
// is, and nothing else is certified there.
func TestCAOffline(t *testing.T) {
	dir, token := initDir(t)
	vault := t.TempDir()
	if err := os.Rename(inDir(dir, caKeyName), inDir(vault, caKeyName)); err != nil {
		t.Fatal(err)
	}
	copyTo := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyTo(inDir(dir, caName), inDir(vault, caName))

	if _, _, err := run(t.Context(), "certs", "renew", "--data", dir); err == nil || !strings.Contains(err.Error(), caKeyName) {
		t.Errorf("renew without the key: %v", err)
	} else if !strings.Contains(hint.Of(err), "--ca-dir") {
		t.Errorf("renew without the key: no hint in %v", err)
	}
	mustRun(t, "serve", "--data", dir, "--check-config")

	before := mustRun(t, "certs", "ls", "--data", dir)
	travelling := filepath.Join(t.TempDir(), "server.pem")
	copyTo(inDir(dir, serverName), travelling)
	mustRun(t, "certs", "renew", "--ca-dir", vault, "--cert", travelling)
	copyTo(travelling, inDir(dir, serverName))
	after := mustRun(t, "certs", "ls", "--data", dir)
	for _, list := range []string{before, after} {
		if !strings.Contains(list, "kbs.example") || !strings.Contains(list, "192.0.2.7") || strings.Count(list, "\n") != 3 {
			t.Errorf("certs ls:\n%s", list)
		}
	}
	if pin := strings.Fields(strings.Split(before, "\n")[1])[2]; !strings.Contains(after, pin) {
		t.Errorf("renewed for another key than %s:\n%s", pin, after)
	}
	url, stop := serve(t, "--data", dir)
	if _, err := admin(t, dir, url, token).List(t.Context()); err != nil {
		t.Errorf("with the renewed certificate: %v", err)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}

	other, _ := initDir(t)
	if _, _, err := run(t.Context(), "certs", "renew", "--ca-dir", vault, "--cert", inDir(other, serverName)); err == nil || !strings.Contains(err.Error(), "not issued by this CA") {
		t.Errorf("another CA's certificate: %v", err)
	}

	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity, backup := filepath.Join(vault, "id"), filepath.Join(vault, "backup.age")
	if err := os.WriteFile(identity, []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "backup", "--data", dir, "--recipient", id.Recipient().String(), "--output", backup, "--with-master-key")
	restored := filepath.Join(t.TempDir(), "restored")
	mustRun(t, "restore", "--data", restored, "--identity", identity, backup)
	if _, err := tls.LoadX509KeyPair(inDir(restored, serverName), inDir(restored, serverKeyName)); err != nil {
		t.Error(err)
	}
	a, _ := os.ReadFile(inDir(dir, caName))
	if b, err := os.ReadFile(inDir(restored, caName)); err != nil || !bytes.Equal(a, b) {
		t.Errorf("restored CA certificate: %v", err)
	}
}

// TestRenewNames: a new name drops none that images were built for, unless that
// is asked for by name.
func TestRenewNames(t *testing.T) {
	dir, _ := initDir(t)
	renew := func(args ...string) string {
		t.Helper()
		said := mustRun(t, append([]string{"certs", "renew", "--data", dir}, args...)...)
		chain, err := readChain(inDir(dir, serverName))
		if err != nil {
			t.Fatal(err)
		}
		names := strings.Join(namesOf(chain[0]), " ")
		for _, n := range namesOf(chain[0]) {
			if !strings.Contains(said, n) {
				t.Errorf("renew %v does not say %s: %s", args, n, said)
			}
		}
		return names
	}
	first := renew()
	if got := renew("--name", "keys2.example.com", "--name", "2001:db8::7"); !strings.Contains(got, "kbs.example") || !strings.Contains(got, "keys2.example.com") ||
		!strings.Contains(got, "192.0.2.7") || !strings.Contains(got, "2001:db8::7") || !strings.Contains(first, "kbs.example") {
		t.Errorf("from %q to %q", first, got)
	}
	if got := renew("--drop-name", "kbs.example"); strings.Contains(got, "kbs.example") || !strings.Contains(got, "keys2.example.com") {
		t.Errorf("after --drop-name: %q", got)
	}
	if _, _, err := run(t.Context(), "certs", "renew", "--data", dir, "--drop-name", "nobody.example"); err == nil || !strings.Contains(err.Error(), "nobody.example") {
		t.Errorf("dropping what is not there: %v", err)
	}
}

func TestNames(t *testing.T) {
	good := []string{"keys.example.com", "localhost", "a-1.example", "1.2.3.example", "192.0.2.7", "2001:db8::7", strings.Repeat("a", 63) + ".example"}
	if err := checkNames("--name", good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "keys.example.com:8443", "https://kbs.example.com", "[2001:db8::8]", "a b", "a..b", ".a", "a.", "-a", "a-", "A.example",
		"*.example.com", "192.0.2", "192.0.2.300", "2001:DB8::7", "fe80::1%eth0", "a/b", "a\x00b", strings.Repeat("a", 64), strings.Repeat("a.", 130) + "a"} {
		if err := checkNames("--name", []string{"good.example", bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
		if _, _, err := run(t.Context(), "init", "--data", filepath.Join(t.TempDir(), "d"), "--name", bad); err == nil || !strings.Contains(err.Error(), "--name") {
			t.Errorf("init --name %q: %v", bad, err)
		}
	}
}
