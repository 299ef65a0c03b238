package endorsements

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// Kinds of Endorsement.
const (
	KindVCEK       = "vcek"
	KindVLEK       = "vlek"
	KindRoot       = "ark"
	KindLink       = "ask" // ASK or ASVK
	KindCRL        = "crl"
	KindCollateral = "collateral"
)

// Endorsement is one signed statement of a vendor that a pinned root vouches
// for. Whether it is current is for whoever uses it to judge, by Expires.
type Endorsement struct {
	Kind    string    `json:"kind"`
	Product string    `json:"product"` // product line, or "FMSPC ..." of Intel's
	Subject string    `json:"subject"` // what it is about, for people
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"` // NotAfter, or NextUpdate
	SHA256  string    `json:"sha256"`  // of its file
	Size    int       `json:"size"`    // of its file, in bytes

	name       string
	content    []byte
	fmspc, ca  string // of collateral
	collateral *tdx.VerifiedCollateral
	crl        *x509.RevocationList
	vek        *snp.Facts
	// slot is what only the freshest of is kept: a vendor's newer CRL knows
	// all that the older did. Empty: never replaced.
	slot string
}

// Name tells those of a kind apart that are renewed, and stays the same when
// they are: a CRL's issuer, or the platform and CA of collateral.
func (e *Endorsement) Name() string { return cmp.Or(e.name, e.Product) }

// Renewable says whether the vendor issues it anew before it expires: a CRL, or
// collateral.
func (e *Endorsement) Renewable() bool { return e.slot != "" }

// fileName is the name under which a Cache keeps it, and an export lists it.
func (e *Endorsement) fileName() string {
	if e.Kind == KindCollateral {
		return e.SHA256 + ".collateral.json"
	}
	return e.SHA256 + "." + e.Kind + ".der"
}

// fresher compares two of the same slot.
func (e *Endorsement) fresher(other *Endorsement) bool {
	return cmp.Or(e.Issued.Compare(other.Issued), e.Expires.Compare(other.Expires), cmp.Compare(e.SHA256, other.SHA256)) > 0
}

func (e *Endorsement) seal(content []byte) *Endorsement {
	sum := sha256.Sum256(content)
	e.content, e.Size, e.SHA256 = content, len(content), hex.EncodeToString(sum[:])
	return e
}

// pinned is the roots that Endorsements are held against.
type pinned struct {
	lines []*snp.ProductLine
	intel *x509.Certificate
}

// judge says what content, a single DER structure or collateral in JSON, is,
// if a pinned root vouches for it. The error is the reason why not.
func (p pinned) judge(content []byte) (*Endorsement, error) {
	if len(content) > maxBundleFile {
		return nil, fmt.Errorf("%d bytes, expected at most %d", len(content), maxBundleFile)
	}
	if trimmed := bytes.TrimSpace(content); len(trimmed) > 0 && trimmed[0] == '{' {
		return p.judgeCollateral(trimmed)
	}
	if c, err := x509.ParseCertificate(content); err == nil {
		return p.judgeCertificate(c)
	}
	if crl, err := x509.ParseRevocationList(content); err == nil {
		return p.judgeCRL(crl)
	}
	return nil, errors.New("neither certificate, CRL nor collateral")
}

// needless says why nothing is lost by leaving out what Intel's tools lay
// beside its collateral; empty if that is not what content is. Its CRLs are not:
// who imports one alone waits for what it revokes.
func (p pinned) needless(content []byte) string {
	if c, err := x509.ParseCertificate(content); err == nil {
		switch {
		case c.Equal(p.intel):
			return "Intel's root is pinned here"
		case bytes.Equal(c.RawIssuer, p.intel.RawSubject) && c.CheckSignatureFrom(p.intel) == nil:
			return "Intel's chains come with each collateral"
		}
	}
	return ""
}

func (p pinned) judgeCertificate(c *x509.Certificate) (*Endorsement, error) {
	for _, l := range p.lines {
		kind := ""
		switch {
		case c.Equal(l.ARK):
			kind = KindRoot
		case l.ASK != nil && c.Equal(l.ASK) || l.ASVK != nil && c.Equal(l.ASVK):
			kind = KindLink
		default:
			continue
		}
		e := &Endorsement{Kind: kind, Product: l.Name, Subject: c.Subject.CommonName, Issued: c.NotBefore, Expires: c.NotAfter}
		return e.seal(c.Raw), nil
	}
	if _, err := snp.ParseFacts(c); err != nil {
		return nil, fmt.Errorf("certificate of %q: neither an AMD key pinned here nor a VCEK or VLEK: %w", c.Subject.CommonName, err)
	}
	k, err := snp.Endorse(c.Raw, p.lines)
	if err != nil {
		return nil, err
	}
	subject := "chip " + hex.EncodeToString(k.Facts.HardwareID)
	if k.Facts.Signer == verifier.VLEK {
		subject = "provider " + k.Facts.Provider
	}
	e := &Endorsement{Kind: strings.ToLower(k.Facts.Signer), Product: k.Line.Name, Subject: subject + ", " + k.Facts.TCB.String(),
		Issued: c.NotBefore, Expires: c.NotAfter, vek: &k.Facts}
	return e.seal(c.Raw), nil
}

func (p pinned) judgeCRL(crl *x509.RevocationList) (*Endorsement, error) {
	if bytes.Equal(crl.RawIssuer, p.intel.RawSubject) || strings.Contains(crl.Issuer.CommonName, "Intel SGX PCK") {
		return nil, fmt.Errorf("CRL of %q: Intel's CRLs are used as part of *.collateral.json alone", crl.Issuer.CommonName)
	}
	err := fmt.Errorf("issuer %q is not pinned here", crl.Issuer.CommonName)
	for _, l := range p.lines {
		for _, i := range []*x509.Certificate{l.ARK, l.ASK, l.ASVK} {
			if i == nil || !bytes.Equal(crl.RawIssuer, i.RawSubject) {
				continue
			}
			if err = crl.CheckSignatureFrom(i); err != nil {
				continue
			}
			e := &Endorsement{Kind: KindCRL, Product: l.Name, name: crl.Issuer.CommonName, Issued: crl.ThisUpdate, Expires: crl.NextUpdate, crl: crl,
				Subject: fmt.Sprintf("%s, %d revoked", crl.Issuer.CommonName, len(crl.RevokedCertificateEntries)),
				slot:    "crl " + hex.EncodeToString(i.RawSubjectPublicKeyInfo)}
			return e.seal(crl.Raw), nil
		}
	}
	return nil, fmt.Errorf("CRL: %w", err)
}

// judgeCollateral writes collateral in one form, so that its digest does not
// hang on who formatted it.
func (p pinned) judgeCollateral(content []byte) (*Endorsement, error) {
	raw, err := tdx.ParseCollateral(content)
	if err != nil {
		return nil, err
	}
	v, err := tdx.VerifyCollateral(raw, p.intel)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	fmspc, ca := v.Platform()
	e := &Endorsement{Kind: KindCollateral, Product: "FMSPC " + fmspc, name: fmspc + " " + ca, Issued: v.Issued(), Expires: v.Expires(), collateral: v, fmspc: fmspc, ca: ca,
		Subject: fmt.Sprintf("PCK by %s CA, TCB evaluation %d", ca, v.Evaluation()),
		slot:    "collateral " + fmspc + " " + ca}
	return e.seal(b), nil
}
