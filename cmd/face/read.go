package face

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
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

var tokenForm = regexp.MustCompile(`^ccrun_[0-9a-f]{12}_[A-Za-z0-9_-]{43}$`)

// ReadSecretFile reads the password, token or passphrase in the file path.
func ReadSecretFile(path string) (secret.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	return ReadSecret(f, path)
}

// openPrivate opens the file path. As ssh does with its keys, it refuses one that
// others can read.
func openPrivate(path, next string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if p := info.Mode().Perm(); info.Mode().IsRegular() && p&0o077 != 0 {
		f.Close()
		return nil, hint.With(fmt.Errorf("%s has mode %04o: others can read or change the token", path, p),
			"chmod 0600 %s; if somebody may have read it, %s", path, next)
	}
	return f, nil
}

// ReadForeignToken reads another service's token, whatever its form.
func ReadForeignToken(path string) (secret.Bytes, error) {
	f, err := openPrivate(path, "revoke it")
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	return ReadSecret(f, path)
}

// ReadTokenFile reads an attest-server's token. It says so of a file that holds
// none: the server would only say that it knows none such.
func ReadTokenFile(path string) (secret.Bytes, error) {
	f, err := openPrivate(path, "`attest-server token revoke` ends it")
	if errors.Is(err, fs.ErrNotExist) {
		err = hint.With(err, "`attest-server token create --token-out FILE` makes a token; `ccrun login` remembers one")
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	defer f.Close()
	token, err := ReadSecret(f, path)
	if b, cr := bytes.CutSuffix(token.Reveal(), []byte("\r")); err == nil && cr { // an editor's of Windows
		token = secret.New(b)
	}
	if err == nil && !IsToken(token) {
		token.Wipe()
		err = hint.With(Usagef("%s holds no token, which is ccrun_ID_SECRET on one line", path),
			"put the token that `attest-server init` or `token create` printed into it")
	}
	return token, err
}

// IsToken tells whether b has the form of an attest-server's token.
func IsToken(b secret.Bytes) bool { return tokenForm.Match(b.Reveal()) }

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
		return nil, hint.With(fmt.Errorf("reading %s: %w", what, err), caHint)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, hint.With(Usagef("%s %s: no PEM certificate in it", what, path), caHint)
	}
	return roots, nil
}

// caHint is where a server's certificate comes from.
const caHint = "ca.pem is in the server's data directory, and public: copy it from there"
