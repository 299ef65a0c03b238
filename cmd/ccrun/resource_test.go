package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResource(t *testing.T) {
	startServer(t)
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("very secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := []string{"resource", "set", "bank/key/db", "--from-file", file, "--workload", "shop"}
	if out, err := ccrun(set...); err != nil || !strings.Contains(out, "version 1 set") {
		t.Fatalf("set: %q, %v", out, err)
	}
	if out, err := ccrun(set...); err != nil || !strings.Contains(out, "version 1 was this already") {
		t.Errorf("set again: %q, %v", out, err)
	}
	if out, err := ccrun("resource", "ls"); err != nil || out != "bank/key/db\n" {
		t.Errorf("ls: %q, %v", out, err)
	}
	if out, err := ccrun("resource", "get-meta", "bank/key/db"); err != nil || !strings.Contains(out, "[shop]") || strings.Contains(out, "secret") {
		t.Errorf("get-meta: %q, %v", out, err)
	}
	if out, err := ccrun("resource", "rm", "bank/key/db"); err != nil || out != "bank/key/db\n" {
		t.Errorf("rm: %q, %v", out, err)
	}
	for _, bad := range [][]string{
		{"resource", "set", "bank/key", "--from-file", file, "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from-file", file},
		{"resource", "set", "bank/key/db", "--from-file", "/dev/null", "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from-file", "/dev/zero", "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from", "file:" + file, "--from-file", file, "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from", file, "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from", "file:", "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from", "file:/dev/null", "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from", "vault:secret/db", "--workload", "shop"},
		{"resource", "get-meta", "bank/key/db"},
		{"resource", "rm", "bank/key/db"},
	} {
		if out, err := ccrun(bad...); err == nil {
			t.Errorf("%v: %q", bad, out)
		}
	}
}

// TestResourceFromVault: what Vault keeps becomes a resource; its token comes from
// a file of the user's own, and neither is shown.
func TestResourceFromVault(t *testing.T) {
	startServer(t)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != "hvs.mine" || r.URL.Path != "/v1/secret/data/bank/db" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"data":{"data":{"key":"very secret","more":"x"},"metadata":{"version":1}}}`)
	}))
	defer engine.Close()
	home := t.TempDir()
	token := filepath.Join(home, ".vault-token")
	t.Setenv("HOME", home)
	t.Setenv("VAULT_ADDR", engine.URL)
	t.Setenv("VAULT_TOKEN", "hvs.mine") // which is not for us
	set := func(want string, more ...string) {
		t.Helper()
		out, err := ccrun(append([]string{"resource", "set", "bank/key/db", "--from", "vault:secret/bank/db#key", "--workload", "shop"}, more...)...)
		text := fmt.Sprint(out, err)
		if !strings.Contains(text, want) || strings.Contains(text, "very secret") || strings.Contains(text, "hvs.") {
			t.Errorf("expected %q, got %s", want, text)
		}
	}
	set("no such file")
	if err := os.WriteFile(token, []byte("hvs.mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	set("mode 0644")
	if err := os.Chmod(token, 0o600); err != nil {
		t.Fatal(err)
	}
	set("version 1 set")
	set("version 1 was this already")
	if out, err := ccrun("resource", "get-meta", "bank/key/db"); err != nil || !strings.Contains(out, " 11 ") {
		t.Errorf("%q, %v, expected 11 bytes", out, err)
	}
	other := filepath.Join(home, "other")
	if err := os.WriteFile(other, []byte("hvs.other"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_TOKEN_FILE", other)
	set("403 Forbidden")
	t.Setenv("VAULT_ADDR", "http://vault.example:8200")
	set("expected https://")
	t.Setenv("VAULT_CACERT", other)
	set("no PEM certificate")
}
