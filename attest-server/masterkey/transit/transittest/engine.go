// Package transittest plays, for tests, the part of Vault or OpenBao that
// package transit talks to, as strictly as the documentation of the API's
// routes, headers and bodies allows.
package transittest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What the engine knows.
const (
	Key       = "attest-server"
	Namespace = "teams/keys"
	RoleID    = "role-1"
	SecretID  = "secret-1"
)

// Engine is a transit engine with one key, mounted at "transit", and the login
// method AppRole.
type Engine struct {
	URL, CAFile string

	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex
	token    string // the one valid
	sealed   bool
	versions []cipher.AEAD
	min      int // oldest version that decrypts
	calls    []string
}

// New starts an engine that ends with the test.
func New(t testing.TB) *Engine {
	t.Helper()
	e := &Engine{t: t, token: "hvs.first", min: 1}
	e.Rotate()
	e.server = httptest.NewTLSServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Stop)
	e.URL = e.server.URL
	e.CAFile = filepath.Join(t.TempDir(), "engine-ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.server.Certificate().Raw})
	if err := os.WriteFile(e.CAFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return e
}

// Stop makes the engine unreachable.
func (e *Engine) Stop() { e.server.Close() }

// Token is the one valid; SetToken makes another so.
func (e *Engine) Token() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.token
}

func (e *Engine) SetToken(token string) { e.set(func() { e.token = token }) }

// Seal makes the engine answer 503 to everything.
func (e *Engine) Seal(sealed bool) { e.set(func() { e.sealed = sealed }) }

// Retire ends the decryption of versions older than min.
func (e *Engine) Retire(min int) { e.set(func() { e.min = min }) }

// Rotate adds a version to the key, as transit/keys/NAME/rotate does.
func (e *Engine) Rotate() {
	k := make([]byte, 32)
	rand.Read(k)
	b, err := aes.NewCipher(k)
	if err != nil {
		e.t.Fatal(err)
	}
	aead, err := cipher.NewGCM(b)
	if err != nil {
		e.t.Fatal(err)
	}
	e.set(func() { e.versions = append(e.versions, aead) })
}

// Calls is the paths asked for, in order.
func (e *Engine) Calls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.calls...)
}

func (e *Engine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *Engine) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, r.URL.Path)
	status, answer := e.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func refuse(status int, why string) (int, any) {
	return status, map[string][]string{"errors": {why}}
}

func (e *Engine) answer(r *http.Request) (int, any) {
	body, err := fields(r)
	switch {
	case e.sealed:
		return refuse(http.StatusServiceUnavailable, "Vault is sealed")
	case err != nil:
		return refuse(http.StatusBadRequest, err.Error())
	case r.Header.Get("X-Vault-Request") != "true":
		return refuse(http.StatusPreconditionFailed, "missing required header X-Vault-Request")
	case r.Header.Get("X-Vault-Namespace") != Namespace:
		return refuse(http.StatusNotFound, "no handler for route: wrong namespace")
	case r.URL.Path == "/v1/auth/approle/login":
		return e.login(r, body)
	case r.Header.Get("X-Vault-Token") != e.token:
		return refuse(http.StatusForbidden, "permission denied")
	}
	operation, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/")
	operation, name, ok2 := strings.Cut(operation, "/")
	if !ok || !ok2 || name != Key {
		return refuse(http.StatusNotFound, "no handler for route")
	}
	return e.operate(operation, body)
}

// fields is the body: a JSON object of strings, nothing besides.
func fields(r *http.Request) (map[string]string, error) {
	if r.Method != http.MethodPost || r.URL.RawQuery != "" || r.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("%s %s of type %q: expected POST without query and JSON", r.Method, r.URL, r.Header.Get("Content-Type"))
	}
	var body map[string]string
	d := json.NewDecoder(r.Body)
	if err := d.Decode(&body); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one value")
	}
	return body, nil
}

func (e *Engine) login(r *http.Request, body map[string]string) (int, any) {
	if r.Header.Get("X-Vault-Token") != "" {
		return refuse(http.StatusBadRequest, "a token at login")
	}
	if len(body) != 2 || body["role_id"] != RoleID || body["secret_id"] != SecretID {
		return refuse(http.StatusBadRequest, "invalid role or secret ID")
	}
	e.token = "hvs.approle"
	return http.StatusOK, map[string]any{"auth": map[string]any{"client_token": e.token, "lease_duration": 60, "renewable": true}}
}

func (e *Engine) operate(operation string, body map[string]string) (int, any) {
	field := "ciphertext"
	if operation == "encrypt" {
		field = "plaintext"
	}
	given, ok := body[field]
	if !ok || len(body) != 1 {
		return refuse(http.StatusBadRequest, "missing "+field)
	}
	var plain []byte
	var err error
	if operation == "encrypt" {
		plain, err = base64.StdEncoding.DecodeString(given)
	} else {
		plain, err = e.decrypt(given)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, err.Error())
	}
	switch operation {
	case "encrypt", "rewrap":
		version := len(e.versions)
		return http.StatusOK, map[string]any{"data": map[string]any{"ciphertext": e.encrypt(plain), "key_version": version}}
	case "decrypt":
		return http.StatusOK, map[string]any{"data": map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}}
	}
	return refuse(http.StatusNotFound, "no handler for route")
}

func (e *Engine) encrypt(plain []byte) string {
	nonce := make([]byte, 12)
	rand.Read(nonce)
	b := e.versions[len(e.versions)-1].Seal(nonce, nonce, plain, nil)
	return fmt.Sprintf("vault:v%d:%s", len(e.versions), base64.StdEncoding.EncodeToString(b))
}

func (e *Engine) decrypt(text string) ([]byte, error) {
	var version int
	var encoded string
	if _, err := fmt.Sscanf(text, "vault:v%d:%s", &version, &encoded); err != nil || version < 1 || version > len(e.versions) {
		return nil, fmt.Errorf("invalid ciphertext: no prefix")
	}
	if version < e.min {
		return nil, fmt.Errorf("ciphertext or signature version is disallowed by policy (too old)")
	}
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(b) < 12 {
		return nil, fmt.Errorf("invalid ciphertext: could not decode base64")
	}
	plain, err := e.versions[version-1].Open(nil, b[:12], b[12:], nil)
	if err != nil {
		return nil, fmt.Errorf("cipher: message authentication failed")
	}
	return plain, nil
}
