// Package transit keeps a key wrapped by the transit engine of HashiCorp Vault
// or OpenBao, which wraps and unwraps for who may, and never shows its own
// key. The API is the one both document under "Transit secrets engine".
package transit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

const (
	maxAnswer     = 64 << 10
	maxCiphertext = 8 << 10
	maxToken      = 8 << 10
	timeout       = 15 * time.Second
)

// Config says where the engine is and as whom to ask it. Address, Key and one
// way to log in are needed.
type Config struct {
	Address   string // https://HOST:PORT
	Mount     string // the engine's path; empty: "transit"
	Key       string // the transit key's name
	Namespace string // empty: none
	CAFile    string // PEM; empty: the system's authorities
	// TokenFile holds a token; or else RoleID and SecretIDFile log in by
	// AppRole at AppRoleMount (empty: "approle"). Both files are read at every
	// use, so that they can be replaced.
	TokenFile    string
	RoleID       string
	SecretIDFile string
	AppRoleMount string
}

// Client wraps and unwraps. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

// Error is the engine's refusal.
type Error struct {
	Path   string
	Status int
	Errors []string // the engine's own words
}

func (e *Error) Error() string {
	why := strings.Join(e.Errors, "; ")
	if why == "" {
		why = "no reason given"
	}
	return fmt.Sprintf("%s answered %d %s: %s", e.Path, e.Status, http.StatusText(e.Status), why)
}

// Hint is the next step.
func (e *Error) Hint() string {
	switch {
	case e.Status == http.StatusForbidden:
		return "the token is not valid, or its policy lacks `update` on that path"
	case e.Status == http.StatusNotFound:
		return "is the transit engine mounted there, and namespace and key right?"
	case e.Status >= 300 && e.Status < 400:
		return "redirects are not followed: name the address of the active node or of the load balancer"
	case e.Status == http.StatusServiceUnavailable:
		return "it is sealed or in maintenance: unseal it"
	}
	return ""
}

// segments are mounts and names: what needs no escaping in a path.
var segments = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`)

// New checks cfg; it does not talk to the engine.
func New(cfg Config) (*Client, error) {
	if cfg.Mount == "" {
		cfg.Mount = "transit"
	}
	if cfg.AppRoleMount == "" {
		cfg.AppRoleMount = "approle"
	}
	u, err := url.Parse(cfg.Address)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		return nil, fmt.Errorf("transit address %q, expected https://HOST:PORT", cfg.Address)
	case !segments.MatchString(cfg.Key) || strings.Contains(cfg.Key, "/"):
		return nil, fmt.Errorf("transit key %q, expected letters, digits, '.', '_', '-'", cfg.Key)
	case !segments.MatchString(cfg.Mount) || !segments.MatchString(cfg.AppRoleMount):
		return nil, fmt.Errorf("transit mount %q, AppRole mount %q, expected a path without slash at its ends", cfg.Mount, cfg.AppRoleMount)
	case strings.ContainsAny(cfg.Namespace, "\r\n"):
		return nil, fmt.Errorf("transit namespace %q with a line break", cfg.Namespace)
	case (cfg.TokenFile == "") == (cfg.RoleID == ""):
		return nil, errors.New("transit: expected either a token file or an AppRole's role id")
	case (cfg.RoleID == "") != (cfg.SecretIDFile == ""):
		return nil, errors.New("transit: expected role id and secret id file together")
	}
	cfg.Address = "https://" + u.Host
	roots, err := readRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, http: &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, ForceAttemptHTTP2: true,
			DisableKeepAlives: true, // asked at start and at a rotation only
		},
		// A redirect would carry token and key to whoever it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading transit CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading transit CA: no PEM certificate in %s", path)
	}
	return roots, nil
}

// ciphertexts are what the engine gives out: "vault:v3:BASE64", under that
// version of its key.
var ciphertexts = regexp.MustCompile(`^[a-z]+:v[1-9][0-9]{0,9}:[A-Za-z0-9+/]{16,}={0,2}$`)

func isCiphertext(s string) bool { return len(s) <= maxCiphertext && ciphertexts.MatchString(s) }

// Wrap has the engine encrypt plain.
func (c *Client) Wrap(ctx context.Context, plain secret.Bytes) (string, error) {
	return c.ciphertext(ctx, "encrypt", map[string][]byte{"plaintext": plain.Reveal()})
}

// Rewrap has the engine encrypt what is in ciphertext under the newest version
// of its key.
func (c *Client) Rewrap(ctx context.Context, ciphertext string) (string, error) {
	if !isCiphertext(ciphertext) {
		return "", errors.New("rewrapping by transit: what is kept is no ciphertext of a transit engine")
	}
	return c.ciphertext(ctx, "rewrap", map[string]string{"ciphertext": ciphertext})
}

func (c *Client) ciphertext(ctx context.Context, operation string, body any) (string, error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	if err := c.operate(ctx, operation, body, &answer); err != nil {
		return "", err
	}
	if !isCiphertext(answer.Data.Ciphertext) {
		return "", fmt.Errorf("asking transit to %s: the answer holds no ciphertext", operation)
	}
	return answer.Data.Ciphertext, nil
}

// Unwrap has the engine decrypt what Wrap or Rewrap returned.
func (c *Client) Unwrap(ctx context.Context, ciphertext string) (secret.Bytes, error) {
	if !isCiphertext(ciphertext) {
		return secret.Bytes{}, errors.New("unwrapping by transit: what is kept is no ciphertext of a transit engine")
	}
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	if err := c.operate(ctx, "decrypt", map[string]string{"ciphertext": ciphertext}, &answer); err != nil {
		return secret.Bytes{}, err
	}
	if len(answer.Data.Plaintext) == 0 {
		return secret.Bytes{}, errors.New("unwrapping by transit: the answer holds no plaintext")
	}
	return secret.New(answer.Data.Plaintext), nil
}

func (c *Client) operate(ctx context.Context, operation string, body, answer any) error {
	token, err := c.login(ctx)
	if err == nil {
		defer token.Wipe()
		err = c.post(ctx, c.cfg.Mount+"/"+operation+"/"+c.cfg.Key, token, body, answer)
	}
	if err != nil {
		return fmt.Errorf("asking transit at %s to %s: %w", c.cfg.Address, operation, err)
	}
	return nil
}

// login is the token of the file, or a fresh one for the AppRole.
func (c *Client) login(ctx context.Context) (secret.Bytes, error) {
	if c.cfg.TokenFile != "" {
		return readLine("token", c.cfg.TokenFile)
	}
	id, err := readLine("secret id", c.cfg.SecretIDFile)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer id.Wipe()
	var answer struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	body := map[string]string{"role_id": c.cfg.RoleID, "secret_id": string(id.Reveal())}
	if err := c.post(ctx, "auth/"+c.cfg.AppRoleMount+"/login", secret.Bytes{}, body, &answer); err != nil {
		return secret.Bytes{}, err
	}
	return asToken("the AppRole's token", []byte(answer.Auth.Token))
}

func readLine(what, path string) (secret.Bytes, error) {
	b, err := bounded.File(path, maxToken)
	if err != nil {
		// Not %w: to callers, no such file means no MasterKey's file.
		return secret.Bytes{}, fmt.Errorf("reading %s: %v", what, err)
	}
	return asToken(path, bytes.TrimSpace(b))
}

// asToken refuses what could not be a header's value.
func asToken(where string, b []byte) (secret.Bytes, error) {
	if len(b) == 0 || len(b) >= maxToken || bytes.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r > '~' }) {
		clear(b)
		return secret.Bytes{}, fmt.Errorf("%s: expected one line of printable characters", where)
	}
	return secret.New(b), nil
}

func (c *Client) post(ctx context.Context, path string, token secret.Bytes, body, answer any) error {
	sent, err := json.Marshal(body)
	if err != nil {
		return err
	}
	defer clear(sent)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Address+"/v1/"+path, bytes.NewReader(sent))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Vault-Request", "true") // agents may insist, against request forgery
	if token.Len() > 0 {
		r.Header.Set("X-Vault-Token", string(token.Reveal()))
	}
	if c.cfg.Namespace != "" {
		r.Header.Set("X-Vault-Namespace", c.cfg.Namespace)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := bounded.Read(resp.Body, "the answer of "+path, maxAnswer)
	defer clear(got)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return refusal(path, resp.StatusCode, got)
	}
	// Errors of the decoder could show what it read.
	if json.Unmarshal(got, answer) != nil {
		return fmt.Errorf("%s answered something else than the API's JSON", path)
	}
	return nil
}

func refusal(path string, status int, body []byte) error {
	var told struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(body, &told) // a proxy's page tells nothing
	e := &Error{Path: path, Status: status}
	for _, t := range told.Errors[:min(len(told.Errors), 4)] {
		e.Errors = append(e.Errors, strings.TrimSpace(fmt.Sprintf("%.200q", t)))
	}
	return e
}
