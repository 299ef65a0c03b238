package chain

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// MaxCertificateBytes bounds one certificate that somebody else sent, in bytes.
const MaxCertificateBytes = 16 << 10

// Describe is a chain as Claims show it.
func Describe(chain ...*x509.Certificate) []verifier.Certificate {
	var d []verifier.Certificate
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		d = append(d, verifier.Certificate{Subject: c.Subject.CommonName, SHA256: hex.EncodeToString(sum[:]),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	return d
}

// CheckValidity checks every certificate of the chain, which the vendor signed,
// against the clock given. It is the verifier that lacks the right time or a
// newer certificate: no guest makes either.
func CheckValidity(at time.Time, chain ...*x509.Certificate) error {
	for _, c := range chain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return verifier.Lack("certificate_validity",
				fmt.Sprintf("%q valid at %s", c.Subject.CommonName, at.UTC().Format(time.RFC3339)),
				fmt.Sprintf("valid %s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)),
				"check the clock, or fetch a current certificate", nil)
		}
	}
	return nil
}

// ParsePEM is every certificate of b, which has nothing else before the last.
func ParsePEM(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			return certs, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
}
