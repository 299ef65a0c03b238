package command

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func (p Program) certsCommand() *cli.Command {
	return &cli.Command{
		Name:        "certs",
		Usage:       "show and renew the server's TLS certificate",
		Description: "Example:\n   " + p.Name + " certs renew --data /var/lib/attest-server",
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list the chain: subject, names, end, and the pin that guests may hold",
				Description: "Example:\n   " + p.Name + " certs ls",
				Flags:       []cli.Flag{dataFlag(), certFlag("list"), face.ListFormatFlag()},
				Action:      listCertificates,
			},
			{
				Name: "renew", Usage: "issue the server's certificate anew under the same CA",
				Description: "The server's key and the CA stay, so no workload needs a new build. Send SIGHUP to the server\n" +
					"afterwards. Names are added: images were built for the old ones. The server itself never needs " + caKeyName + ", which is the power to stand in for it to every\n" +
					"guest: keep it elsewhere, with " + caName + ", and renew there: only the certificate travels.\n\nExample:\n   " +
					p.Name + " certs renew --name keys.example.com && systemctl reload attest-server\n   " +
					p.Name + " certs renew --ca-dir /media/ca --cert server.pem",
				Flags: []cli.Flag{
					dataFlag(), certFlag("renew in place"),
					&cli.StringFlag{Name: "ca-dir", Usage: "`DIR` with " + caName + " and " + caKeyName + " (default: --data)"},
					&cli.StringSliceFlag{Name: "name", Usage: "another DNS `NAME` or IP address (repeatable); those it has stay"},
					&cli.StringSliceFlag{Name: "drop-name", Usage: "leave out `NAME`: images built for it can reach this server no more (repeatable)"},
				},
				Action: renewCertificate,
			},
		},
	}
}

func certFlag(use string) cli.Flag {
	return &cli.StringFlag{Name: "cert", Usage: "PEM `FILE` with the chain to " + use + " (default: " + serverName + " in DIR)"}
}

func certFile(c *cli.Context) string {
	return cmp.Or(c.String("cert"), inDir(c.String("data"), serverName))
}

func renewCertificate(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	ca, caKey, err := loadCA(cmp.Or(c.String("ca-dir"), c.String("data")))
	if err != nil {
		return err
	}
	path := certFile(c)
	old, err := readChain(path)
	if err != nil {
		return err
	}
	names, err := renewedNames(namesOf(old[0]), c.StringSlice("name"), c.StringSlice("drop-name"))
	if err != nil {
		return err
	}
	// The file may be anybody's: only what this CA has issued is issued anew.
	if err := old[0].CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("renewing certificate: %s was not issued by this CA: %w", path, err)
	}
	chain, err := issue(ca, caKey, old[0].PublicKey, names, time.Now(), rand.Reader)
	if err != nil {
		return err
	}
	if err := replace(path, chain); err != nil {
		return fmt.Errorf("renewing certificate: %w", err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s is valid until %s for %s\n", path, time.Now().Add(leafLife).Format(time.DateOnly), strings.Join(names, " "))
	return err
}

// renewedNames is had with add and without drop.
func renewedNames(had, add, drop []string) ([]string, error) {
	if err := checkNames("--name", add); err != nil {
		return nil, err
	}
	names := slices.Clone(had)
	for _, n := range add {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, n := range drop {
		i := slices.Index(names, n)
		if i < 0 {
			return nil, face.Usagef("--drop-name %s: the certificate is for %s", n, strings.Join(names, " "))
		}
		names = slices.Delete(names, i, i+1)
	}
	if len(names) == 0 {
		return nil, face.Usagef("--drop-name: no name would be left")
	}
	return names, nil
}

func loadCA(dir string) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.LoadX509KeyPair(inDir(dir, caName), inDir(dir, caKeyName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, hint.With(fmt.Errorf("reading CA: %w", err),
			"take %s to where %s is kept, run `certs renew --ca-dir DIR --cert %[1]s` there, and bring it back", serverName, caKeyName)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading CA: %w", err)
	}
	ca, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, nil, fmt.Errorf("reading CA: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("reading CA: the key in %s cannot sign", dir)
	}
	return ca, key, nil
}

// readChain is the certificates of a PEM file, at least one.
func readChain(path string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("reading certificate %s: %w", path, errors.Join(err, fmt.Errorf("block of type %q", block.Type)))
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("reading certificate: no PEM certificate in %s", path)
	}
	return chain, nil
}

func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

func listCertificates(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	chain, err := readChain(certFile(c))
	if err != nil {
		return err
	}
	var list []listedCertificate
	for _, x := range chain {
		list = append(list, listedCertificate{x.Subject.String(), x.NotAfter.UTC(), fmt.Sprint(kbs.PinOf(x)), namesOf(x)})
	}
	return face.List(c, list, func(x listedCertificate) string { return x.Pin }, printCertificates)
}

func printCertificates(out io.Writer, list []listedCertificate) error {
	w := face.Table(out)
	fmt.Fprintln(w, "SUBJECT\tEXPIRES\tPIN\tNAMES")
	for _, x := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", x.Subject, x.Expires.Format(time.RFC3339), x.Pin, strings.Join(x.Names, " "))
	}
	return w.Flush()
}

// listedCertificate is a line of `certs ls`.
type listedCertificate struct {
	Subject string    `json:"subject"`
	Expires time.Time `json:"expires"`
	Pin     string    `json:"pin"`
	Names   []string  `json:"names"`
}
