package kbs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/hint"
)

// ErrUnpinned reports a server whose certificate chain holds no pinned key.
var ErrUnpinned = errors.New("server's key is not pinned")

// Pins is a set of SHA-256 digests of DER SubjectPublicKeyInfo. The zero
// value trusts nobody.
type Pins struct {
	keys map[[sha256.Size]byte]bool
}

// ParsePins reads pins of 64 hex digits each; none at all is an error.
func ParsePins(list []string) (Pins, error) {
	if len(list) == 0 {
		return Pins{}, errors.New("no pinned server key")
	}
	p := Pins{keys: make(map[[sha256.Size]byte]bool, len(list))}
	for _, s := range list {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != sha256.Size {
			return Pins{}, fmt.Errorf("pinned key %q: expected the SHA-256 of a public key, 64 hex digits", s)
		}
		p.keys[[sha256.Size]byte(b)] = true
	}
	return p, nil
}

// PinOf is cert's pin: SHA-256 of its SubjectPublicKeyInfo, lower-case hex.
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// PinsFromPEM is the pin of every certificate in b, in order. A file without
// a certificate, or with a broken one, is an error.
func PinsFromPEM(b []byte) ([]string, error) {
	certs, err := parseCertificates(b)
	if err != nil {
		return nil, err
	}
	pins := make([]string, len(certs))
	for i, c := range certs {
		pins[i] = PinOf(c)
	}
	return pins, nil
}

func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q, expected CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate found")
	}
	return certs, nil
}

func (p Pins) has(c *x509.Certificate) bool {
	return p.keys[sha256.Sum256(c.RawSubjectPublicKeyInfo)]
}

// Verify accepts chain (leaf first, as presented) if the leaf's key is pinned,
// or if a pinned CA in the chain signs down to the leaf and the leaf is for
// host. Certificate times are not compared with now: the guest's clock belongs
// to the host, which could otherwise lock guests out, or let a stale one in
// just as well. A pinned leaf needs no name, because the key itself was named
// in the measured identity.
func (p Pins) Verify(chain []*x509.Certificate, host string) error {
	if len(chain) == 0 {
		return fmt.Errorf("no server certificate: %w", ErrUnpinned)
	}
	if p.has(chain[0]) {
		return nil
	}
	err := fmt.Errorf("server key %s: %w", PinOf(chain[0]), ErrUnpinned)
	for i, ca := range chain[1:] {
		if !p.has(ca) {
			continue
		}
		if err = verifyUnder(ca, chain[:i+1], host); err == nil {
			return nil
		}
	}
	return err
}

// verifyUnder checks chain (leaf first) up to ca alone.
func verifyUnder(ca *x509.Certificate, chain []*x509.Certificate, host string) error {
	if host == "" {
		return errors.New("no host name to check the certificate against")
	}
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		DNSName:   host,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	opts.Roots.AddCert(timeless(ca))
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(timeless(c))
	}
	if _, err := timeless(chain[0]).Verify(opts); err != nil {
		return hint.With(fmt.Errorf("server certificate under the pinned CA: %w", err),
			"`attest-server certs ls` shows what the server's certificate is for; `certs renew --name HOST` adds a name")
	}
	return nil
}

// timeless is c as if it were valid at any time. crypto/x509 has no way to
// leave times out, and no single moment serves for a whole chain: a CA may be
// younger than the leaf, made again under the same key (RFC 5280 asks for no
// nesting of validity).
func timeless(c *x509.Certificate) *x509.Certificate {
	t := *c
	t.NotBefore, t.NotAfter = time.Time{}, time.Unix(1<<40, 0)
	return &t
}

// tlsConfig trusts the pins and nothing else. The standard check is off
// because VerifyConnection, which runs on every handshake, replaces it.
func (p Pins) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return p.Verify(cs.PeerCertificates, host)
		},
	}
}
