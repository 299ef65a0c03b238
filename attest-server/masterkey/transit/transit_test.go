package transit_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/masterkey/transit"
	"github.com/ccrun/ccrun/attest-server/masterkey/transit/transittest"
	"github.com/ccrun/ccrun/secret"
)

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func config(t *testing.T, e *transittest.Engine) transit.Config {
	return transit.Config{
		Address: e.URL, Key: transittest.Key, Namespace: transittest.Namespace, CAFile: e.CAFile, TokenFile: file(t, e.Token()+"\n"),
	}
}

func open(t *testing.T, cfg transit.Config) *transit.Client {
	t.Helper()
	c, err := transit.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWrapAndUnwrap(t *testing.T) {
	e := transittest.New(t)
	c := open(t, config(t, e))
	k := secret.New([]byte("thirty-two bytes of a master key"))
	wrapped, err := c.Wrap(t.Context(), k)
	if err != nil || !strings.HasPrefix(wrapped, "vault:v1:") || strings.Contains(wrapped, "master key") {
		t.Fatalf("%q, %v", wrapped, err)
	}
	if got, err := c.Unwrap(t.Context(), wrapped); err != nil || !got.Equal(k) {
		t.Errorf("unwrapped: %v", err)
	}
	e.Rotate()
	fresh, err := c.Rewrap(t.Context(), wrapped)
	if err != nil || !strings.HasPrefix(fresh, "vault:v2:") {
		t.Fatalf("%q, %v", fresh, err)
	}
	e.Retire(2)
	if got, err := c.Unwrap(t.Context(), fresh); err != nil || !got.Equal(k) {
		t.Errorf("rewrapped: %v", err)
	}
	if _, err := c.Unwrap(t.Context(), wrapped); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("retired version: %v", err)
	}
	want := []string{"/v1/transit/encrypt/attest-server", "/v1/transit/decrypt/attest-server", "/v1/transit/rewrap/attest-server"}
	if calls := e.Calls(); !slices.Equal(calls[:3], want) {
		t.Errorf("asked for %v, expected %v", calls[:3], want)
	}
}

func TestAppRole(t *testing.T) {
	e := transittest.New(t)
	cfg := config(t, e)
	cfg.TokenFile, cfg.RoleID, cfg.SecretIDFile = "", transittest.RoleID, file(t, transittest.SecretID)
	c := open(t, cfg)
	k := secret.New([]byte("k"))
	wrapped, err := c.Wrap(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Unwrap(t.Context(), wrapped); err != nil || !got.Equal(k) {
		t.Error(err)
	}
	cfg.SecretIDFile = file(t, "another")
	if _, err := open(t, cfg).Unwrap(t.Context(), wrapped); err == nil || !strings.Contains(err.Error(), "invalid role or secret ID") || strings.Contains(err.Error(), "another") {
		t.Errorf("wrong secret id: %v", err)
	}
}

// TestRefusals: each is an error that says what to do, and none has the token
// in it.
func TestRefusals(t *testing.T) {
	e := transittest.New(t)
	good := config(t, e)
	wrapped, err := open(t, good).Wrap(t.Context(), secret.New([]byte("k")))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change     func(*transit.Config)
		want, hint string
	}{
		"wrong token":     {func(c *transit.Config) { c.TokenFile = file(t, "hvs.stale") }, "403 Forbidden: \"permission denied\"", "policy"},
		"no token":        {func(c *transit.Config) { c.TokenFile = "/nonexistent" }, "reading token", ""},
		"empty token":     {func(c *transit.Config) { c.TokenFile = file(t, "\n") }, "one line", ""},
		"header in token": {func(c *transit.Config) { c.TokenFile = file(t, "a\r\nb: c") }, "one line", ""},
		"wrong key":       {func(c *transit.Config) { c.Key = "other" }, "404", "mounted"},
		"wrong mount":     {func(c *transit.Config) { c.Mount = "kv" }, "404", "mounted"},
		"wrong namespace": {func(c *transit.Config) { c.Namespace = "" }, "404", "namespace"},
		"unknown CA":      {func(c *transit.Config) { c.CAFile = "" }, "certificate", ""},
		"unreachable":     {func(c *transit.Config) { c.Address = "https://127.0.0.1:1" }, "connection refused", ""},
	} {
		cfg := good
		c.change(&cfg)
		_, err := open(t, cfg).Unwrap(t.Context(), wrapped)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hvs.") {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		var told *transit.Error
		if errors.As(err, &told) && !strings.Contains(told.Hint(), c.hint) || c.hint != "" && told == nil {
			t.Errorf("%s: hint of %v, expected %q", name, err, c.hint)
		}
	}
	e.Seal(true)
	if _, err := open(t, good).Unwrap(t.Context(), wrapped); err == nil || !strings.Contains(err.Error(), "Vault is sealed") {
		t.Errorf("sealed: %v", err)
	}
}

func TestConfigRefused(t *testing.T) {
	good := transit.Config{Address: "https://vault.example.com:8200", Key: "k", TokenFile: "/t"}
	if _, err := transit.New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*transit.Config){
		"no address":           func(c *transit.Config) { c.Address = "" },
		"without TLS":          func(c *transit.Config) { c.Address = "http://vault.example.com:8200" },
		"address with a path":  func(c *transit.Config) { c.Address += "/v1" },
		"password in address":  func(c *transit.Config) { c.Address = "https://a:b@vault.example.com" },
		"no key":               func(c *transit.Config) { c.Key = "" },
		"key leaves the mount": func(c *transit.Config) { c.Key = "../sys/seal" },
		"key with a slash":     func(c *transit.Config) { c.Key = "a/b" },
		"mount leaves":         func(c *transit.Config) { c.Mount = "../sys" },
		"mount with a query":   func(c *transit.Config) { c.Mount = "transit?x" },
		"header in namespace":  func(c *transit.Config) { c.Namespace = "a\r\nX: y" },
		"no way to log in":     func(c *transit.Config) { c.TokenFile = "" },
		"two ways to log in":   func(c *transit.Config) { c.RoleID, c.SecretIDFile = "r", "/s" },
		"half an AppRole":      func(c *transit.Config) { c.TokenFile, c.RoleID = "", "r" },
		"no such CA":           func(c *transit.Config) { c.CAFile = "/nonexistent" },
		"CA without any":       func(c *transit.Config) { c.CAFile = "/dev/null" },
	} {
		cfg := good
		change(&cfg)
		if _, err := transit.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestAnswersRefused: what answers is not believed to be an engine.
func TestAnswersRefused(t *testing.T) {
	followed := false
	var answer func(http.ResponseWriter)
	mux := http.NewServeMux()
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { followed = true })
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	s := httptest.NewTLSServer(mux)
	defer s.Close()
	e := transittest.New(t)
	cfg := config(t, e)
	cfg.Address = s.URL // httptest's certificate is always the same
	c := open(t, cfg)
	text := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status); fmt.Fprint(w, body) }
	}
	for name, a := range map[string]func(http.ResponseWriter){
		"redirect": func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(307) },
		"not JSON": text(200, "<html>"), "no data": text(200, "{}"), "no content": text(204, ""),
		"empty plaintext": text(200, `{"data":{"plaintext":"","ciphertext":""}}`),
		"not base64":      text(200, `{"data":{"plaintext":"!","ciphertext":"!"}}`),
		"too long":        text(200, `{"data":"`+strings.Repeat("a", 1<<17)+`"}`),
		"a page":          text(502, "<html>bad gateway</html>"),
	} {
		answer = a
		if k, err := c.Unwrap(t.Context(), "vault:v1:AAAAAAAAAAAAAAAAAAAA"); err == nil {
			t.Errorf("%s: unwrapped to %d bytes", name, k.Len())
		}
		if w, err := c.Wrap(t.Context(), secret.New([]byte("k"))); err == nil {
			t.Errorf("%s: wrapped to %q", name, w)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
	if _, err := c.Unwrap(t.Context(), "not a ciphertext"); err == nil || !strings.Contains(err.Error(), "no ciphertext") {
		t.Errorf("no ciphertext: %v", err)
	}
}
