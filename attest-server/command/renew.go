package command

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
)

func (p Program) tlsCommand() *cli.Command {
	return &cli.Command{
		Name:        "tls",
		Usage:       "renew the server's certificate",
		Description: "Example:\n   " + p.Name + " tls renew --data /var/lib/attest-server",
		Subcommands: []*cli.Command{{
			Name: "renew", Usage: "issue the server's certificate anew under the same CA",
			Description: "The server's key and the CA stay, so no workload needs a new build. Send SIGHUP to the server\n" +
				"afterwards.\n\nExample:\n   " + p.Name + " tls renew --name keys.example.com && systemctl reload attest-server",
			Flags:  []cli.Flag{dataFlag(), &cli.StringSliceFlag{Name: "name", Usage: "DNS `NAME` or IP address (repeatable; default: the names it has)"}},
			Action: renewCertificate,
		}},
	}
}

func renewCertificate(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	dir := c.String("data")
	ca, err := loadPair(dir, caName, caKeyName)
	if err != nil {
		return fmt.Errorf("reading CA: %w", err)
	}
	old, err := loadPair(dir, serverName, serverKeyName)
	if err != nil {
		return fmt.Errorf("reading TLS identity: %w", err)
	}
	names := c.StringSlice("name")
	if len(names) == 0 {
		names = old.Leaf.DNSNames
		for _, ip := range old.Leaf.IPAddresses {
			names = append(names, ip.String())
		}
	}
	key, ok := old.PrivateKey.(crypto.Signer)
	caKey, ok2 := ca.PrivateKey.(crypto.Signer)
	if !ok || !ok2 {
		return errors.New("renewing certificate: a key in the data directory cannot sign")
	}
	chain, err := issue(ca.Leaf, caKey, key.Public(), names, time.Now(), rand.Reader)
	if err != nil {
		return err
	}
	if err := replace(inDir(dir, serverName), chain); err != nil {
		return fmt.Errorf("renewing certificate: %w", err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s is valid until %s\n", inDir(dir, serverName), time.Now().Add(leafLife).Format(time.DateOnly))
	return err
}

func loadPair(dir, cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(inDir(dir, cert), inDir(dir, key))
	if err != nil {
		return pair, err
	}
	pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	return pair, err
}

// replace swaps a file's content in one step that survives a power cut. The
// new file belongs to whom the old one belonged, which may be the service.
func replace(path string, b []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return put(path, b, info, info.Mode().Perm())
}

// put is replace where there may be no file yet: it gets like's owner.
func put(path string, b []byte, like os.FileInfo, mode os.FileMode) error {
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeNew(temp, b, mode); err != nil {
		return err
	}
	if err := errors.Join(sameOwner(temp, like), os.Rename(temp, path)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}
