package command

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// certificate is the server's TLS identity on disk, which SIGHUP reads again.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// renewBefore is how long before a certificate's end its operator is told.
const renewBefore = 30 * 24 * time.Hour

// expiresSoon says whether the certificate in use should be renewed.
func (c *certificate) expiresSoon(now time.Time) (time.Time, bool) {
	until := c.current.Load().Leaf.NotAfter
	return until, until.Sub(now) < renewBefore
}

// load reads the files. On error the certificate in use stays.
func (c *certificate) load(now time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("reading TLS identity: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("reading TLS identity: %w", err)
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("reading TLS identity: certificate %s expired on %s", c.certFile, leaf.NotAfter.Format(time.DateOnly))
	}
	pair.Leaf = leaf
	c.current.Store(&pair)
	return nil
}

// config is TLS 1.3 with Go's key exchanges, hybrid post-quantum first.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if p := c.current.Load(); p != nil {
				return p, nil
			}
			return nil, errors.New("no TLS identity")
		},
	}
}
