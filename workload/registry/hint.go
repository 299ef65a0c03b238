package registry

import (
	"crypto/x509"
	"errors"
	"strings"

	"github.com/ccrun/ccrun/hint"
)

// WithHint adds the next step to an error of reaching a registry; otherwise is
// what to do about one that is not about TLS, if it says nothing itself.
func WithHint(err error, otherwise string) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown) || strings.Contains(err.Error(), "certificate signed by unknown authority"):
		return hint.With(err, "give --cert-dir DIR with its CA as ca.crt, or put that into /etc/containers/certs.d/HOST:PORT; --tls-verify=false trusts whoever answers")
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"): // the library's text is all there is
		return hint.With(err, "for a registry without TLS give --tls-verify=false, or set insecure = true for it in registries.conf")
	case hint.Of(err) == "" && otherwise != "":
		return hint.With(err, "%s", otherwise)
	}
	return err
}
