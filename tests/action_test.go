package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/signature/sigstore"
	"github.com/google/go-containerregistry/pkg/registry"
)

// TestGitHubAction does what the example's job does, against a registry, a server
// and a stand-in for Vault and for GitHub's OIDC tokens: two releases, of which
// the second is the next version of the first.
func TestGitHubAction(t *testing.T) {
	for _, tool := range []string{"curl", "jq"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	w := newWorld(t)
	w.must("ccrun-sim", "attest-server", "tenant", "set", "acme", "--data", filepath.Join(w.dir, "server"))
	w.must("ccrun-sim", "attest-server", "token", "create", "--role", "publisher", "--tenant", "acme", "--principal", "ci", "--expires", "1h",
		"--data", filepath.Join(w.dir, "server"), "--token-out", filepath.Join(w.dir, "ci-token"))
	pair, err := sigstore.GenerateKeyPair([]byte("pass phrase"))
	if err != nil {
		t.Fatal(err)
	}
	entry := map[string]string{"token": string(readFile(t, filepath.Join(w.dir, "ci-token"))), "signing-key": string(pair.PrivateKey),
		"signing-key.pub": string(pair.PublicKey), "signing-passphrase": "pass phrase"}
	vault := httptest.NewServer(vaultOfJobs(entry))
	defer vault.Close()
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer images.Close()
	writeOCI(t, filepath.Join(w.dir, "shop"), shell("echo hello"), busyboxLayer(t))
	publish := func(role string) (string, error) {
		cmd := w.command("../examples/github-action/publish.sh")
		cmd.Dir = w.mkdir("job")
		if cmd.Path, err = filepath.Abs("../examples/github-action/publish.sh"); err != nil {
			t.Fatal(err)
		}
		for _, kv := range w.env {
			if !strings.HasPrefix(kv, "CCRUN_TOKEN_FILE=") {
				cmd.Env = append(cmd.Env, kv)
			}
		}
		cmd.Env = append(cmd.Env, "SOURCE=oci:"+filepath.Join(w.dir, "shop"), "IMAGE=docker://"+strings.TrimPrefix(images.URL, "http://")+"/acme/shop:1",
			"WORKLOAD_ID=acme.shop", "TEE=sample", "FIRMWARE="+w.firmware, "ATTEST_URL="+w.url, "TLS_VERIFY=false",
			"VAULT_ADDR="+vault.URL, "VAULT_ROLE="+role, "VAULT_PATH=secret/ccrun/shop",
			"ACTIONS_ID_TOKEN_REQUEST_URL="+vault.URL+"/oidc?api-version=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-job")
		out, err := cmd.CombinedOutput()
		for name, secret := range entry {
			if name != "signing-key.pub" && strings.Contains(string(out), secret) {
				t.Errorf("the output shows %s", name)
			}
		}
		return string(out), err
	}
	for range 2 {
		if out, err := publish("shop-release"); err != nil || !strings.Contains(out, "registered:  yes") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if out := w.must("ccrun", "workload", "ls", "-q"); out != "acme.shop\nacme.shop@1\n" {
		t.Errorf("registered: %q", out)
	}
	if out, err := publish("another-role"); err == nil {
		t.Errorf("a job of another role published:\n%s", out)
	}
	if left, _ := filepath.Glob("/dev/shm/tmp.*/signing-key"); len(left) > 0 {
		t.Errorf("secrets are left: %v", left)
	}
}

// vaultOfJobs plays GitHub's issuer of tokens and, under /v1, what Vault documents
// of its login by JWT and of its key-value engine.
func vaultOfJobs(entry map[string]string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /oidc", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "bearer of-the-job" || r.URL.Query().Get("audience") == "" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(rw, `{"value":"a.jwt.x"}`)
	})
	mux.HandleFunc("POST /v1/auth/jwt/login", func(rw http.ResponseWriter, r *http.Request) {
		var in struct{ Role, JWT string }
		if json.NewDecoder(r.Body).Decode(&in) != nil || in.Role != "shop-release" || in.JWT != "a.jwt.x" {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(rw, `{"auth":{"client_token":"hvs.job"}}`)
	})
	mux.HandleFunc("GET /v1/secret/data/ccrun/shop", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != "hvs.job" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"data": map[string]any{"data": entry, "metadata": map[string]any{"version": 1}}})
	})
	return mux
}
