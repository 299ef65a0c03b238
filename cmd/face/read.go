package face

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

// Read reads the file path, or standard input if it is "-", of at most limit
// bytes.
func Read(c *cli.Context, path string, limit int64) ([]byte, error) {
	if path == "-" {
		return bounded.Read(c.App.Reader, "standard input", limit)
	}
	return bounded.File(path, limit)
}

// maxSecret bounds a password, token or passphrase, in bytes.
const maxSecret = 4096

// ReadSecretFile reads the password, token or passphrase in the file path.
func ReadSecretFile(path string) (secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	return ReadSecret(f, path)
}

// ReadSecret is ReadSecretFile for what is open already. It leaves out the
// line end that editors put behind.
func ReadSecret(r io.Reader, name string) (secret.Bytes, error) {
	b, err := bounded.Read(r, name, maxSecret)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(bytes.TrimSuffix(b, []byte("\n"))), nil
}

// Roots reads the PEM file path of certificates to trust, as what names it.
func Roots(what, path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, Usagef("%s %s: no PEM certificate in it", what, path)
	}
	return roots, nil
}
