package kbs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/ccrun/ccrun/hint"
)

// unreached gives an owner who got no answer the next step.
func unreached(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &unknown):
		return hint.With(err, "give the server's ca.pem with --ca or CCRUN_CA")
	case errors.As(err, &name):
		return hint.With(err, "use a name that the certificate has; `attest-server certs renew --name NAME` adds one")
	case errors.As(err, &cert):
		return hint.With(err, "`attest-server certs ls` on the server's machine shows what is wrong with it; `attest-server certs renew` makes another")
	case errors.As(err, &dns):
		return hint.With(err, "check the server's name, in --server, CCRUN_SERVER or `ccrun context ls`, and this machine's name servers")
	case errors.As(err, &timeout) && timeout.Timeout():
		return hint.With(err, "check the server's address and the firewalls on the way")
	case errors.As(err, &op):
		return hint.With(err, "check the server's address, and that attest-server runs there (`systemctl status attest-server`)")
	}
	return err
}
