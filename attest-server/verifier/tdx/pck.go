package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"

	_ "embed"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/google/go-tdx-guest/pcs"
)

// intelRootPEM is the Intel SGX Root CA, published at
// https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem
// and taken from go-tdx-guest (verify/trusted_root.pem).
//
//go:embed roots/intel_sgx_root_ca.pem
var intelRootPEM []byte

// Root is the Intel SGX Root CA.
func Root() (*x509.Certificate, error) {
	certs, err := chain.ParsePEM(intelRootPEM)
	if err != nil || len(certs) != 1 {
		return nil, fmt.Errorf("reading the built-in Intel root: %d certificates: %w", len(certs), err)
	}
	return certs[0], nil
}

// pckChain is a PCK certificate that the pinned root vouches for.
type pckChain struct {
	leaf, ca *x509.Certificate
	ext      *pcs.PckExtensions
	details  []verifier.Certificate
}

// issuedBy checks names, CA bits and the ECDSA P-256 signature.
func issuedBy(c, issuer *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("%q is issued by %q, expected %q", c.Subject.CommonName, c.Issuer.CommonName, issuer.Subject.CommonName)
	}
	if c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return fmt.Errorf("%q is signed with %s, expected %s", c.Subject.CommonName, c.SignatureAlgorithm, x509.ECDSAWithSHA256)
	}
	return c.CheckSignatureFrom(issuer)
}

// PlatformOf is the platform that made a quote, and the name of the CA that
// issued its PCK. The chain is checked up to Intel's root, the quote is not.
func PlatformOf(quote []byte) (fmspc, ca string, err error) {
	q, err := parseQuote(quote)
	if err != nil {
		return "", "", err
	}
	root, err := Root()
	if err != nil {
		return "", "", err
	}
	pck, err := checkPCKChain(q.pckChain, root)
	if err != nil {
		return "", "", err
	}
	return pck.ext.FMSPC, caName(pck.ca), nil
}

// caName is the PCS' name for a CA that issues PCKs.
func caName(ca *x509.Certificate) string {
	if strings.Contains(ca.Subject.CommonName, "Processor") {
		return "processor"
	}
	return "platform"
}

// checkPCKChain parses a chain in PEM, leaf first, and checks it up to root.
// The root that a chain brings along must be the pinned one, key and all.
func checkPCKChain(pemCerts []byte, root *x509.Certificate) (*pckChain, error) {
	certs, err := pemChain(pemCerts, 3)
	if err != nil {
		return nil, pckError("leaf, CA and root in PEM", "something else", err)
	}
	leaf, ca := certs[0], certs[1]
	if !certs[2].Equal(root) {
		return nil, pckError("the pinned "+root.Subject.CommonName, fmt.Sprintf("another %q", certs[2].Subject.CommonName), nil)
	}
	if err := issuedBy(ca, root); err != nil {
		return nil, pckError("a CA under the pinned root", "a bad link", err)
	}
	if err := issuedBy(leaf, ca); err != nil {
		return nil, pckError("a PCK certificate under the CA", "a bad link", err)
	}
	if !strings.HasPrefix(leaf.Subject.CommonName, "Intel SGX PCK Certificate") || leaf.IsCA {
		return nil, pckError("an Intel SGX PCK Certificate", fmt.Sprintf("%q", leaf.Subject.CommonName), nil)
	}
	ext, err := pcs.PckCertificateExtensions(leaf)
	if err != nil {
		return nil, pckError("Intel's SGX extensions", "something else", err)
	}
	return &pckChain{leaf: leaf, ca: ca, ext: ext, details: chain.Describe(root, ca, leaf)}, nil
}

func pckError(expected, got string, err error) error {
	return verifier.Refuse("certificate_chain", expected, got, "the quote does not come from Intel's hardware", err)
}

// pemChain parses exactly n certificates; a NUL may follow.
func pemChain(b []byte, n int) ([]*x509.Certificate, error) {
	if len(b) > n*chain.MaxCertificateBytes {
		return nil, fmt.Errorf("%d bytes", len(b))
	}
	var certs []*x509.Certificate
	for range n {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%d certificates, expected %d", len(certs), n)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, b = append(certs, c), rest
	}
	if len(bytes.Trim(b, "\x00\r\n \t")) != 0 {
		return nil, errors.New("data after the last certificate")
	}
	return certs, nil
}

// verifyP256 checks an ECDSA signature given as R and S, 32 bytes each.
func verifyP256(pub *ecdsa.PublicKey, msg, sig []byte) bool {
	if len(sig) != 64 {
		return false
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
	if err != nil {
		return false
	}
	sum := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(pub, sum[:], der)
}

// p256Key is the key that a quote gives as X and Y; points off the curve are
// refused.
func p256Key(xy []byte) (*ecdsa.PublicKey, error) {
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, xy...))
}
