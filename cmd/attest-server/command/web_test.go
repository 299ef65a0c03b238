package command

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/secret"
)

func TestWebPage(t *testing.T) {
	dir, token := initDir(t)
	base, stop := serve(t, "--data", dir)
	if _, err := admin(t, dir, base, token).Register(t.Context(), registration("w1", 1)); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: tlsRoots(admin(t, dir, base, token).RootCAs)}
	defer tr.CloseIdleConnections()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: tr, Jar: jar}
	get := func(resp *http.Response, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := get(c.Get(base + "/")); status != http.StatusOK || !strings.Contains(body, "Log in") || strings.Contains(body, "w1") {
		t.Fatalf("/ without login: %d %s", status, body)
	}
	auditor := strings.TrimSpace(mustRun(t, "token", "create", "--data", dir, "--role", "auditor"))
	if status, body := get(c.PostForm(base+"/ui/login", url.Values{"token": {auditor}})); status != http.StatusOK || !strings.Contains(body, "Overview") {
		t.Fatalf("login: %d %s", status, body)
	}
	for path, want := range map[string]string{"/ui/workloads": "w1", "/ui/expiry": "attest-server CA", "/ui/audit": "workload.register"} {
		if status, body := get(c.Get(base + path)); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, lacks %q", path, status, want)
		}
	}
	// A cookie is no token: the API does not take it.
	if status, _ := get(c.Get(base + "/v1/workloads")); status != http.StatusUnauthorized {
		t.Errorf("the API with a login cookie: %d", status)
	}
	u, _ := url.Parse(base)
	for _, k := range jar.Cookies(u) {
		if _, err := admin(t, dir, base, k.Value).Get(t.Context(), "w1"); err == nil {
			t.Error("a login cookie works as a token")
		}
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}

	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("web_page = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base, stop = serve(t, "--data", dir, "--config", file)
	if status, _ := get(c.Get(base + "/")); status != http.StatusNotFound {
		t.Errorf("/ with web_page = false: %d", status)
	}
	if _, err := stop(); err != nil {
		t.Error(err)
	}
	var wiped secret.Bytes
	if _, err := webPage(wiped, web.Options{}); err == nil {
		t.Error("a page without a store")
	}
}
