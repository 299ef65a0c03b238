package command

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// certificate is the server's TLS identity on disk, which SIGHUP reads again.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	clients           atomic.Pointer[x509.CertPool] // nil: no client certificates
}

// renewBefore is how long before a certificate's end its operator is told.
const renewBefore = 30 * 24 * time.Hour

// expiresSoon says whether the certificate in use should be renewed.
func (c *certificate) expiresSoon(now time.Time) (time.Time, bool) {
	until := c.current.Load().Leaf.NotAfter
	return until, until.Sub(now) < renewBefore
}

// expiries is when the chain's certificates end.
func (c *certificate) expiries() []web.Expiry {
	var all []web.Expiry
	for _, der := range c.current.Load().Certificate {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			continue // not the leaf, which was parsed when it was loaded
		}
		all = append(all, web.Expiry{Kind: "tls", Name: x.Subject.CommonName, Expires: x.NotAfter})
	}
	return all
}

// read is the identity as the files have it now. One that has expired is
// served all the same: guests look at no times, and a clock that is wrong after
// a power cut must not keep a whole site down.
func (c *certificate) read() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		err = fmt.Errorf("reading TLS identity: %w", err)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, hint.With(err, "%s is to hold the chain, leaf first, and %s the leaf's private key, both PEM; `certs renew` where ca.key is makes a new pair", c.certFile, c.keyFile)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("reading TLS identity: %w", err)
	}
	pair.Leaf = leaf
	return &pair, nil
}

// readAnew is read for a server that runs: it does not take an expired
// certificate in the place of one that is good.
func (c *certificate) readAnew(now time.Time) (*tls.Certificate, error) {
	next, err := c.read()
	if err == nil && now.After(next.Leaf.NotAfter) && !now.After(c.current.Load().Leaf.NotAfter) {
		return nil, hint.With(fmt.Errorf("reading TLS identity: certificate %s expired on %s, and the one in use did not", c.certFile, next.Leaf.NotAfter.Format(time.DateOnly)),
			"run `certs renew` where ca.key is")
	}
	return next, err
}

// clientRoots are the CAs of client certificates; nil if there are none.
func clientRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	return face.Roots("client_ca", path)
}

// config is TLS 1.3 with Go's key exchanges, hybrid post-quantum first.
func (c *certificate) config() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if p := c.current.Load(); p != nil {
				return p, nil
			}
			return nil, errors.New("no TLS identity")
		},
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool := c.clients.Load()
		if pool == nil {
			return nil, nil
		}
		// No session is resumed: it would bring a client certificate along
		// that a CA vouched for that may be gone.
		with := base.Clone()
		with.ClientAuth, with.ClientCAs, with.SessionTicketsDisabled = tls.VerifyClientCertIfGiven, pool, true // guests have none
		return with, nil
	}
	return base
}
