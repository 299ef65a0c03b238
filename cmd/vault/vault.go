// Package vault reads a secret out of the key-value engine, version 2, of
// HashiCorp Vault or OpenBao, as whoever runs the command. The API is the one
// both document under "KV secrets engine, version 2".
package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

const (
	maxAnswer = 2 << 20 // an entry has at most 1 MiB, and JSON may double it
	timeout   = 30 * time.Second
)

// Client asks one engine.
type Client struct {
	Address   string // https://HOST[:PORT]; http:// on this machine alone
	Namespace string // empty: none
	Token     secret.Bytes
	Roots     *x509.CertPool // nil: the system's
}

// Field is the value of name's field: 1 to limit bytes.
func (c *Client) Field(ctx context.Context, name Name, limit int) (secret.Bytes, error) {
	base, err := address(c.Address)
	if err != nil {
		return secret.Bytes{}, err
	}
	answer, err := c.get(ctx, base+name.path())
	defer clear(answer)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading %s at %s: %w", name, base, err)
	}
	v, err := fieldOf(answer, name.Field)
	if err == nil && (v.Len() == 0 || v.Len() > limit) {
		err = fmt.Errorf("field %s has %d bytes, expected 1 to %d", name.Field, v.Len(), limit)
		v.Wipe()
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading %s at %s: %w", name, base, err)
	}
	return v, nil
}

// address is the engine's, without a slash at its end. A token goes over clear
// connections on this machine alone.
func address(s string) (string, error) {
	u, err := url.Parse(s)
	plain := err == nil && u.Scheme == "http" && isLoopback(u.Hostname())
	if err != nil || !plain && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", hint.With(hint.Usagef("VAULT_ADDR %q, expected https://HOST:PORT", s), "http:// is for 127.0.0.1, ::1 and localhost alone: a token would go in clear")
	}
	return u.Scheme + "://" + u.Host, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *Client) get(ctx context.Context, url string) ([]byte, error) {
	if err := checkToken(c.Token); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Vault-Request", "true") // agents may insist, against request forgery
	r.Header.Set("X-Vault-Token", string(c.Token.Reveal()))
	if c.Namespace != "" {
		if strings.ContainsFunc(c.Namespace, notPrintable) {
			return nil, hint.Usagef("VAULT_NAMESPACE %q, expected printable characters", c.Namespace)
		}
		r.Header.Set("X-Vault-Namespace", c.Namespace)
	}
	resp, err := c.http().Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := bounded.Read(resp.Body, "the answer", maxAnswer)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer clear(b)
		return nil, refusal(resp.StatusCode, b)
	}
	return b, nil
}

func (c *Client) http() *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
			ForceAttemptHTTP2: true, DisableKeepAlives: true,
		},
		// A redirect would carry the token to whoever it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func checkToken(t secret.Bytes) error {
	if t.Len() == 0 || bytes.ContainsFunc(t.Reveal(), notPrintable) {
		return errors.New("the token is no line of printable characters")
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// refusal is the engine's, with the next step.
func refusal(status int, body []byte) error {
	var told struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(body, &told) // a proxy's page tells nothing
	why := "no reason given"
	if len(told.Errors) > 0 {
		why = fmt.Sprintf("%.200q", strings.Join(told.Errors, "; "))
	}
	err := fmt.Errorf("answered %d %s: %s", status, http.StatusText(status), why)
	switch {
	case status == http.StatusForbidden:
		return hint.With(err, "the token is not valid, or its policy lacks `read` on MOUNT/data/PATH")
	case status == http.StatusNotFound:
		return hint.With(err, "is that a key-value engine of version 2, is there such a path, and is its latest version not deleted?")
	case status >= 300 && status < 400:
		return hint.With(err, "redirects are not followed: name the address of the active node or of the load balancer")
	case status == http.StatusServiceUnavailable:
		return hint.With(err, "it is sealed or in maintenance: unseal it")
	}
	return err
}

// fieldOf is a field of the entry in an answer. Errors of the decoder could show
// what it read.
func fieldOf(answer []byte, field string) (secret.Bytes, error) {
	var envelope map[string]json.RawMessage
	var data struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata json.RawMessage            `json:"metadata"`
	}
	if !utf8.Valid(answer) || kbs.UnmarshalStrict(answer, &envelope) != nil || kbs.UnmarshalStrict(envelope["data"], &data) != nil || len(data.Metadata) == 0 {
		return secret.Bytes{}, hint.With(errors.New("the answer is not that of a key-value engine of version 2"), "`vault secrets list -detailed` shows what is mounted where, and its version")
	}
	raw, ok := data.Data[field]
	if !ok {
		return secret.Bytes{}, fmt.Errorf("there is no field %q, but %d others", field, len(data.Data))
	}
	var text *string
	if json.Unmarshal(raw, &text) != nil || text == nil {
		return secret.Bytes{}, fmt.Errorf("field %q is no text", field)
	}
	if strings.ContainsRune(*text, utf8.RuneError) {
		return secret.Bytes{}, fmt.Errorf("field %q is no valid Unicode", field)
	}
	return secret.New([]byte(*text)), nil
}
