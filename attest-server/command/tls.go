package command

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// certificate is the server's TLS identity on disk, which SIGHUP reads again.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	clients           *x509.CertPool // nil: no client certificates
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

// loadClients reads the CAs of client certificates.
func (c *certificate) loadClients(path string) error {
	if path == "" {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading client_ca: %w", err)
	}
	c.clients = x509.NewCertPool()
	if !c.clients.AppendCertsFromPEM(pem) {
		return fmt.Errorf("reading client_ca: no PEM certificate in %s", path)
	}
	return nil
}

// config is TLS 1.3 with Go's key exchanges, hybrid post-quantum first.
func (c *certificate) config() *tls.Config {
	mode := tls.NoClientCert
	if c.clients != nil {
		mode = tls.VerifyClientCertIfGiven // guests have none
	}
	return &tls.Config{
		ClientAuth: mode,
		ClientCAs:  c.clients,
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
