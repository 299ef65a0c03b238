package verifier

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"
)

// maxCertificateSize bounds one certificate that somebody else sent, in bytes.
const maxCertificateSize = 16 << 10

func describe(chain ...*x509.Certificate) []Certificate {
	var d []Certificate
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		d = append(d, Certificate{Subject: c.Subject.CommonName, SHA256: hex.EncodeToString(sum[:]),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	return d
}

// checkValidity checks every certificate of the chain against the clock given.
func checkValidity(at time.Time, chain ...*x509.Certificate) error {
	for _, c := range chain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return refuse("certificate_validity",
				fmt.Sprintf("%q valid at %s", c.Subject.CommonName, at.UTC().Format(time.RFC3339)),
				fmt.Sprintf("valid %s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)),
				"check the clock, or fetch a current certificate", nil)
		}
	}
	return nil
}

func parsePEM(b []byte) ([]*x509.Certificate, error) {
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
