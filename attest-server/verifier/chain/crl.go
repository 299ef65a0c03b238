package chain

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// Revocations is the CRLs of some issuers, each CRL's signature checked once.
type Revocations map[*x509.Certificate][]*x509.RevocationList

// NewRevocations sorts crls by the issuer that signed them. A CRL of none of
// the issuers is passed over; one that bears an issuer's name without its
// signature is an error: dropping it would forget a revocation.
func NewRevocations(crls []*x509.RevocationList, issuers []*x509.Certificate) (Revocations, error) {
	r := Revocations{}
	for _, crl := range crls {
		var named, err = false, error(nil)
		for _, i := range issuers {
			if !bytes.Equal(crl.RawIssuer, i.RawSubject) {
				continue
			}
			if err = crl.CheckSignatureFrom(i); err == nil {
				r[i] = append(r[i], crl)
			}
			named = named || err == nil
		}
		if !named && err != nil {
			return nil, fmt.Errorf("checking the CRL of %q: %w", crl.Issuer.CommonName, err)
		}
	}
	return r, nil
}

// Check refuses c if any CRL of its issuer lists it, and if there are CRLs of
// that issuer but all have expired: a host that holds back the newest one must
// gain nothing. A CRL ahead of the clock counts, since it only knows more.
// Without any CRL it refuses only if one is required. That none is current is
// the verifier's lack, and says nothing of c.
func (r Revocations) Check(c, issuer *x509.Certificate, at time.Time, required bool) error {
	crls := r[issuer]
	if len(crls) == 0 && !required {
		return nil
	}
	current := false
	for _, crl := range crls {
		if err := NotRevoked(crl, c); err != nil {
			return err
		}
		current = current || !crl.NextUpdate.IsZero() && !at.After(crl.NextUpdate)
	}
	if !current {
		return verifier.Lack("revocation", fmt.Sprintf("a CRL of %q current at %s", issuer.Subject.CommonName, at.UTC().Format(time.RFC3339)),
			crlPeriods(crls), "fetch the vendor's current CRL", nil)
	}
	return nil
}

func crlPeriods(crls []*x509.RevocationList) string {
	if len(crls) == 0 {
		return "no CRL"
	}
	last := crls[0]
	for _, c := range crls {
		if c.ThisUpdate.After(last.ThisUpdate) {
			last = c
		}
	}
	return fmt.Sprintf("the latest is for %s to %s", last.ThisUpdate.UTC().Format(time.RFC3339), last.NextUpdate.UTC().Format(time.RFC3339))
}

// NotRevoked refuses c if crl lists it.
func NotRevoked(crl *x509.RevocationList, c *x509.Certificate) error {
	for _, e := range crl.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
			return verifier.Refuse("revocation", fmt.Sprintf("%q not revoked", c.Subject.CommonName), "revoked on "+verifier.ShowTime(e.RevocationTime),
				"the vendor withdrew this certificate: the machine must not be trusted", nil)
		}
	}
	return nil
}
