package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/contexts"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:      "login",
		Usage:     "remember an attestation server, whom to trust as it, and a token for it",
		ArgsUsage: "URL",
		Description: `Checks all three, keeps them as a context of the calling user, and uses it from
then on where --server is not given. The server is trusted by --ca, by the
--fingerprint that "attest-server certs ls" shows there as a pin, or else by the
system's authorities.

Example:
   ccrun login https://attest.example:8443 --fingerprint 5a0c… --token-file token`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "fingerprint", Usage: "SHA-256 of the public key of the server or of its CA, `HEX`"},
			&cli.StringFlag{Name: "ca", Usage: "PEM `FILE` with the server's or its CA's certificate"},
			&cli.StringFlag{Name: "token-file", Value: "-", Usage: "`FILE` with the token; - is standard input"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the context (default: the server's host)"},
		},
		Action: login,
	}
}

func login(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "URL"); err != nil {
		return err
	}
	server := c.Args().First()
	if err := kbs.CheckServerURL(server); err != nil {
		return face.WithStatus(face.Misused, err)
	}
	u, err := url.Parse(server)
	if err != nil {
		return face.WithStatus(face.Misused, err)
	}
	ca, err := authority(c, u)
	if err != nil {
		return err
	}
	token, err := loginToken(c)
	if err != nil {
		return err
	}
	defer token.Wipe()
	client := &kbs.AdminClient{URL: server, Token: token}
	if len(ca) > 0 {
		client.RootCAs = x509.NewCertPool()
		client.RootCAs.AppendCertsFromPEM(ca)
	}
	if _, err := client.List(c.Context); err != nil {
		return fmt.Errorf("trying the token: %w", err)
	}
	store, err := contexts.User()
	if err != nil {
		return err
	}
	name := cmp.Or(c.String("name"), strings.ReplaceAll(u.Hostname(), ":", "-"))
	if err := store.Put(name, server, ca, token); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "logged in to %s; context %s is in use\n", server, name)
	return err
}

// loginToken is the token in --token-file. A terminal is asked for it and does not
// show it.
func loginToken(c *cli.Context) (secret.Bytes, error) {
	path := c.String("token-file")
	if path != "-" {
		t, err := face.ReadTokenFile(path)
		if err != nil {
			return t, fmt.Errorf("reading --token-file: %w", err)
		}
		return t, nil
	}
	t, err := face.AskSecret(c.Context, c.App.Reader, c.App.ErrWriter, "Token for "+c.Args().First()+": ")
	if err == nil && !face.IsToken(t) {
		t.Wipe()
		err = hint.With(face.Usagef("standard input holds no token, which is ccrun_ID_SECRET on one line"),
			"give --token-file FILE; `attest-server token create` makes a token")
	}
	return t, err
}

// authority is what to trust as the server at u, as PEM; nothing is the
// system's authorities, which vouch for it.
func authority(c *cli.Context, u *url.URL) ([]byte, error) {
	if path := c.String("ca"); path != "" {
		if _, err := face.Roots("--ca", path); err != nil {
			return nil, err
		}
		return bounded.File(path, 1<<20)
	}
	chain, err := presented(c.Context, u)
	if err != nil {
		return nil, err
	}
	want := strings.ToLower(strings.ReplaceAll(c.String("fingerprint"), ":", ""))
	if want == "" {
		return nil, systemVouches(chain, u)
	}
	pins, err := kbs.ParsePins([]string{want})
	if err != nil {
		return nil, face.Usagef("--fingerprint: %w", err)
	}
	if err := pins.Verify(chain, u.Hostname()); err != nil {
		return nil, hint.With(fmt.Errorf("checking %s by its fingerprint: %w", u, err),
			"it shows %s; compare with `attest-server certs ls` on the server's own machine", kbs.PinOf(chain[len(chain)-1]))
	}
	for _, cert := range chain {
		if kbs.PinOf(cert) == want {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), nil
		}
	}
	return nil, kbs.ErrUnpinned
}

// presented is the chain of certificates that the server at u shows. Nothing
// is sent to it, and nothing is believed yet.
func presented(ctx context.Context, u *url.URL) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: u.Hostname(), InsecureSkipVerify: true}} //nolint:gosec // the caller verifies
	conn, err := d.DialContext(ctx, "tcp", u.Hostname()+":"+cmp.Or(u.Port(), "443"))
	if err != nil {
		return nil, hint.With(fmt.Errorf("reaching %s: %w", u, err), "check the URL, and that attest-server runs there (`systemctl status attest-server`)")
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return nil, fmt.Errorf("reaching %s: it shows no certificate", u)
	}
	return chain, nil
}

func systemVouches(chain []*x509.Certificate, u *url.URL) error {
	o := x509.VerifyOptions{DNSName: u.Hostname(), Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(o); err != nil {
		return hint.With(fmt.Errorf("checking the certificate of %s: %w", u, err),
			"if `attest-server certs ls` on the server's own machine shows the pin %s, add --fingerprint with it; or give --ca FILE", kbs.PinOf(chain[len(chain)-1]))
	}
	return nil
}
