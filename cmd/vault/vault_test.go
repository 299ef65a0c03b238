package vault

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// TestNames: a name is one place in the engine, whatever its characters.
func TestNames(t *testing.T) {
	for s, want := range map[string]string{
		"secret/db#password":        "/v1/secret/data/db",
		"secret/shop/db#p#w":        "/v1/secret/data/shop/db%23p", // the last # counts
		"team/kv//shop/db#password": "/v1/team/kv/data/shop/db",
		"secret/a b/ü?x=1#f":        "/v1/secret/data/a%20b/%C3%BC%3Fx=1",
		"secret/%2e%2e/x#f":         "/v1/secret/data/%252e%252e/x",
		"":                          "", "secret#f": "", "secret/#f": "", "/db#f": "", "secret/db": "", "secret/db#": "",
		"secret/../sys/x#f": "", "secret/./x#f": "", "../secret/x#f": "", "secret///x#f": "", "a//b//c#f": "", "secret/x\n#f": "", "secret/x#f\r": "",
		"secret/\xff#f": "", "secret/" + strings.Repeat("x", 2000) + "#f": "",
	} {
		n, err := ParseName(s)
		if (err == nil) != (want != "") || err == nil && n.path() != want {
			t.Errorf("%.60q: %q, %v, expected %q", s, n.path(), err, want)
		}
		if again, err2 := ParseName(strings.TrimPrefix(n.String(), "vault:")); err == nil && (err2 != nil || again != n) {
			t.Errorf("%.60q is written %s, which is %+v, %v", s, n, again, err2)
		}
	}
}

// kv2 plays the engine: one entry, one token.
type kv2 struct {
	status int
	body   string
	moved  string
	asked  []string
}

const token = "hvs.CAESIJ"

func (e *kv2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.asked = append(e.asked, r.Method+" "+r.URL.EscapedPath()+" "+r.Header.Get("X-Vault-Namespace"))
	switch {
	case r.Header.Get("X-Vault-Token") != token || r.Header.Get("X-Vault-Request") != "true":
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":["permission denied"]}`)
	case e.moved != "":
		http.Redirect(w, r, e.moved, http.StatusTemporaryRedirect)
	default:
		w.WriteHeader(e.status)
		fmt.Fprint(w, e.body)
	}
}

const entry = `{"request_id":"1","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"password":"s3cret\u00e9","n":7,"o":{},"z":null,"empty":"","lone":"\ud800"},
	"metadata":{"created_time":"2026-05-06T07:08:09Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":3}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`

func TestField(t *testing.T) {
	e := &kv2{status: 200, body: entry}
	server := httptest.NewTLSServer(e)
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	c := Client{Address: server.URL + "/", Roots: roots, Token: secret.New([]byte(token)), Namespace: "teams/shop"}
	n := Name{"secret", "shop/db", "password"}
	v, err := c.Field(t.Context(), n, 8)
	if err != nil || string(v.Reveal()) != "s3creté" || e.asked[0] != "GET /v1/secret/data/shop/db teams/shop" {
		t.Fatalf("%v, %v", e.asked, err)
	}
	refused := func(want string, change func(*Client, *kv2, *Name)) {
		t.Helper()
		c, e2, n := c, *e, n
		change(&c, &e2, &n)
		before := *e
		*e = e2
		_, err := c.Field(t.Context(), n, 8)
		*e = before
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected %q, got %v", want, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), token)) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	for field, want := range map[string]string{"x": "no field", "n": "no text", "o": "no text", "z": "no text", "empty": "0 bytes", "lone": "no valid Unicode"} {
		refused(want, func(_ *Client, _ *kv2, n *Name) { n.Field = field })
	}
	for body, want := range map[string]string{
		"": "version 2", "{}": "version 2", "<html>s3cret": "version 2", entry + "{}": "version 2", strings.Repeat(" ", maxAnswer+1): "too large",
		`{"data":{"password":"s3cret"}}`:                                       "version 2", // of version 1
		`{"data":{"data":{"password":"s3cret"},"metadata":{},"x":1}}`:          "version 2",
		`{"data":{"data":{"password":"s3cret","password":"a"},"metadata":{}}}`: "version 2",
		`{"data":{"data":{"password":"s3cret-long"},"metadata":{}}}`:           "11 bytes",
		"{\"data\":{\"data\":{\"password\":\"s3cret\xff\"},\"metadata\":{}}}":  "version 2",
	} {
		refused(want, func(_ *Client, e *kv2, _ *Name) { e.body = body })
	}
	refused("403 Forbidden: \"permission denied\"", func(c *Client, _ *kv2, _ *Name) { c.Token = secret.New([]byte("hvs.other")) })
	refused("printable", func(c *Client, _ *kv2, _ *Name) { c.Token = secret.New([]byte("a\nb")) })
	refused("printable", func(c *Client, _ *kv2, _ *Name) { c.Token = secret.Bytes{} })
	refused("VAULT_NAMESPACE", func(c *Client, _ *kv2, _ *Name) { c.Namespace = "a\r\nX: y" })
	refused("404 Not Found", func(_ *Client, e *kv2, _ *Name) { e.status, e.body = 404, `{"errors":[]}` })
	refused("503", func(_ *Client, e *kv2, _ *Name) { e.status, e.body = 503, "<html>" })
	refused("certificate", func(c *Client, _ *kv2, _ *Name) { c.Roots = x509.NewCertPool() })
	for _, a := range []string{"", "127.0.0.1:8200", "http://vault.example:8200", "http://127.0.0.1.example", "https://u:p@vault.example", "https://vault.example/x", "ftp://127.0.0.1", "https://"} {
		refused("VAULT_ADDR", func(c *Client, _ *kv2, _ *Name) { c.Address = a })
	}
	other := &kv2{status: 200, body: entry}
	elsewhere := httptest.NewServer(other)
	defer elsewhere.Close()
	refused("307", func(_ *Client, e *kv2, _ *Name) { e.moved = elsewhere.URL })
	if other.asked != nil {
		t.Errorf("the token went where a redirect led: %v", other.asked)
	}
	c = Client{Address: elsewhere.URL, Token: secret.New([]byte(token))} // http://127.0.0.1
	if _, err := c.Field(t.Context(), n, 8); err != nil {
		t.Error(err)
	}
}
