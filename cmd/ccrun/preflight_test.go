package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

// TestPreflight: a server that guests would not trust for its name is refused
// before anything is built; what cannot be judged from here is a warning.
func TestPreflight(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	chain, own := namedChain(t, "127.0.0.1", "192.0.2.1")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{chain}}
	_ = s.Listener.Close()
	var err error
	if s.Listener, err = net.Listen("tcp4", "0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	for name, x := range map[string]struct {
		url, pin     string
		fails, warns bool
	}{
		"named":            {"https://127.0.0.1:" + port, own, false, false},
		"named by another": {"https://192.0.2.1:1", own, false, false},
		"not named":        {"https://127.0.0.2:" + port, own, true, false},
		"another's key":    {"https://127.0.0.2:" + port, strings.Repeat("01", 32), false, true},
		"nobody there":     {"https://127.0.0.2:1", own, false, true},
		"without pins":     {"https://127.0.0.2:1", "", false, false},
	} {
		o := &workload.Options{}
		o.Servers.URLs = []string{x.url}
		if x.pin != "" {
			o.Servers.PinnedKeys = []string{x.pin}
		}
		warned, err := trying(t, "https://127.0.0.1:"+port, o)
		if (err != nil) != x.fails || strings.Contains(warned, "may not trust") != x.warns {
			t.Errorf("%s: %v, %s", name, err, warned)
		}
	}
}

// namedChain is a certificate for addresses with its CA behind it, and the CA's
// pin.
func namedChain(t *testing.T, addresses ...string) (tls.Certificate, string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caPub, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caPub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	for _, a := range addresses {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(a))
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}, kbs.PinOf(parsed)
}

func trying(t *testing.T, server string, o *workload.Options) (warned string, err error) {
	t.Helper()
	var errs bytes.Buffer
	app := &cli.App{Flags: serverFlags(), ErrWriter: &errs, Action: func(c *cli.Context) error {
		u, parseErr := url.Parse(o.Servers.URLs[0])
		if parseErr != nil {
			return parseErr
		}
		return trusted(c, o, u)
	}}
	err = app.Run([]string{"ccrun", "--server", server, "--token-file", "none"})
	return errs.String(), err
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true, "0.0.0.0": true, "localhost": true, "LOCALHOST.": true, "kbs.localhost": true,
		"10.0.2.2": false, "localhost.example": false, "mylocalhost": false, "192.168.127.1": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// asWho answers like a server to a token.
type asWho struct {
	who *kbs.Whoami
	err error
}

func (a asWho) Whoami(context.Context) (*kbs.Whoami, error) { return a.who, a.err }

// TestMayRegister: what the server would refuse at the end is refused at the
// start, and an id that nobody chose is one of the tenant's.
func TestMayRegister(t *testing.T) {
	for name, x := range map[string]struct {
		server     asWho
		id         string
		says, hint string
		prefix     string
	}{
		"operator's":           {asWho{who: &kbs.Whoami{Role: "publisher"}}, "shop", "", "", ""},
		"operator's, no id":    {asWho{who: &kbs.Whoami{Role: "admin"}}, "", "", "", ""},
		"tenant's":             {asWho{who: &kbs.Whoami{Role: "publisher", Tenant: "acme"}}, "acme.shop", "", "", ""},
		"tenant's, no id":      {asWho{who: &kbs.Whoami{Role: "publisher", Tenant: "acme"}}, "", "", "", "acme."},
		"no prefix":            {asWho{who: &kbs.Whoami{Role: "publisher", Tenant: "acme"}}, "shop", "tenant acme", "--workload-id acme.shop", ""},
		"another's prefix":     {asWho{who: &kbs.Whoami{Role: "admin", Tenant: "acme"}}, "acmes.shop", "tenant acme", "--workload-id acme.acmes.shop", ""},
		"the tenant's own":     {asWho{who: &kbs.Whoami{Role: "publisher", Tenant: "acme"}}, "acme", "", "", ""},
		"auditor's":            {asWho{who: &kbs.Whoami{Role: "auditor"}}, "shop", "auditor", "--role publisher", ""},
		"a server that cannot": {asWho{err: errors.New("404")}, "shop", "", "", ""},
	} {
		o := &workload.Options{WorkloadID: x.id}
		err := mayRegister(t.Context(), x.server, o)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if (x.says == "") != (err == nil) || !strings.Contains(said, x.says) || !strings.Contains(hint.Of(err), x.hint) || o.IDPrefix != x.prefix {
			t.Errorf("%s: %v, hint %q, prefix %q", name, err, hint.Of(err), o.IDPrefix)
		}
	}
}
