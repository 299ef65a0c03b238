package command

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTenantCommands(t *testing.T) {
	dir, _ := initDir(t)
	mustRun(t, "tenant", "set", "--data", dir, "--max-workloads", "1", "acme")
	if out := mustRun(t, "tenant", "ls", "--data", dir); !strings.Contains(out, "acme") || !strings.Contains(out, "0 of 1") {
		t.Errorf("ls: %s", out)
	}
	token := strings.TrimSpace(mustRun(t, "token", "create", "--data", dir, "--role", "publisher", "--tenant", "acme"))
	if out := mustRun(t, "token", "ls", "--data", dir); !strings.Contains(out, "acme") {
		t.Errorf("token ls: %s", out)
	}
	srv, _ := serve(t, "--data", dir, "--listen", "127.0.0.1:0")
	c := admin(t, dir, srv, token)
	if _, err := c.Register(t.Context(), registration("acme.a", 1)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"acme.b", "shop"} {
		if _, err := c.Register(t.Context(), registration(id, 2)); err == nil {
			t.Errorf("%s registered", id)
		}
	}
	for _, bad := range [][]string{
		{"tenant", "set", "--data", dir, "A"}, {"tenant", "set", "--data", dir}, {"tenant", "rm", "--data", dir, "acme"},
		{"tenant", "rm", "--data", dir, "nobody"}, {"token", "create", "--data", dir, "--role", "admin", "--tenant", "nobody"},
	} {
		if out, _, err := run(t.Context(), bad...); err == nil {
			t.Errorf("%v: %s", bad, out)
		}
	}
}

func TestClientConfig(t *testing.T) {
	dir, _ := initDir(t)
	for name, x := range map[string]struct {
		toml string
		ok   bool
	}{
		"both":            {"client_ca = \"CA\"\n[[clients]]\nsubject = \"CN=ci\"\nrole = \"publisher\"\n", true},
		"no CA":           {"[[clients]]\nsubject = \"CN=ci\"\nrole = \"publisher\"\n", false},
		"no clients":      {"client_ca = \"CA\"\n", false},
		"no role":         {"client_ca = \"CA\"\n[[clients]]\nsubject = \"CN=ci\"\n", false},
		"no subject":      {"client_ca = \"CA\"\n[[clients]]\nrole = \"admin\"\n", false},
		"CA that is none": {"client_ca = \"KEY\"\n[[clients]]\nsubject = \"CN=ci\"\nrole = \"publisher\"\n", false},
		"unknown field":   {"client_ca = \"CA\"\n[[clients]]\nsubject = \"CN=ci\"\nrole = \"admin\"\nrank = 1\n", false},
	} {
		path := filepath.Join(t.TempDir(), "c.toml")
		text := strings.NewReplacer("CA\"", inDir(dir, caName)+"\"", "KEY\"", inDir(dir, caKeyName)+"\"").Replace(x.toml)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := run(t.Context(), "serve", "--data", dir, "--config", path, "--check-config")
		if (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRemoveTenantOfCertificate: a tenant stays while the configuration gives a
// client certificate to it.
func TestRemoveTenantOfCertificate(t *testing.T) {
	dir, _ := initDir(t)
	mustRun(t, "tenant", "set", "acme", "--data", dir)
	mustRun(t, "tenant", "set", "acme-2", "--data", dir)
	text := fmt.Sprintf("data = %q\nclients = [ {subject=\"CN=ci\", role=\"publisher\", tenant=\"acme\"} ]\n", dir)
	config := written(t, text)
	if _, _, err := run(t.Context(), "tenant", "rm", "acme", "--config", config); err == nil || !strings.Contains(err.Error(), "CN=ci") {
		t.Errorf("removed beneath its certificate: %v", err)
	}
	mustRun(t, "tenant", "rm", "acme-2", "--config", config)
	mustRun(t, "tenant", "rm", "acme", "--config", written(t, fmt.Sprintf("data = %q\n", dir)))
}

// TestCertificateMeansItsTenant: a client certificate of a tenant that was
// removed is not a later one's of the same name, whether the server runs on or
// starts anew, until the configuration is read again by somebody's wish.
func TestCertificateMeansItsTenant(t *testing.T) {
	dir, token := initDir(t)
	mine := clientCertificate(t, dir, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	config := written(t, fmt.Sprintf("data = %q\nclient_ca = %q\nclients = [ {subject=\"CN=eye\", role=\"auditor\", tenant=\"acme\"} ]\n", dir, inDir(dir, caName)))
	mustRun(t, "tenant", "set", "--data", dir, "acme")
	var log *buffer
	start := func() (cmd *exec.Cmd, status func() int) {
		t.Helper()
		log = new(buffer)
		cmd, url := processTo(t, log, nil, "--config", config)
		roots := admin(t, dir, url, token).RootCAs
		return cmd, func() int {
			t.Helper()
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{mine}}}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(url + "/v1/workloads")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode
		}
	}
	cmd, status := start()
	if got := status(); got != http.StatusOK {
		t.Fatalf("its own tenant: %d", got)
	}
	mustRun(t, "tenant", "rm", "--data", dir, "acme")
	mustRun(t, "tenant", "set", "--data", dir, "acme")
	if got := status(); got != http.StatusForbidden {
		t.Errorf("another tenant of the name, while the server runs: %d", got)
	}
	for range 2 {
		cmd.Process.Kill()
		_ = cmd.Wait()
		cmd, status = start()
		if got := status(); got != http.StatusForbidden || !strings.Contains(log.String(), "was removed") {
			t.Errorf("the server starts anew: %d\n%s", got, log.String())
		}
	}
	cmd.Process.Signal(syscall.SIGHUP)
	log.await(t, "read again: ")
	if got := status(); got != http.StatusOK {
		t.Errorf("read again: %d\n%s", got, log.String())
	}
	cmd.Process.Kill()
	_ = cmd.Wait()
	if _, status = start(); status() != http.StatusOK {
		t.Errorf("and the server starts anew:\n%s", log.String())
	}
}
