package snp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-sev-guest/verify/trust"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
)

// ProductLine is a line of processors, its pinned certificates and what is
// peculiar to its reports. A report of version 3 or later names its processor
// by CPUID; only lines that list it are tried.
type ProductLine struct {
	Name string // as in the KDS: Milan, Genoa, Turin
	CPUs []CPURange
	// FMC is set for lines whose TCB_VERSION has a FMC component and whose
	// certificates carry a hardware id of 8 bytes, as Turin's do.
	FMC  bool
	ARK  *x509.Certificate // self-signed root
	ASK  *x509.Certificate // signs VCEKs; nil: VCEKs are refused
	ASVK *x509.Certificate // signs VLEKs; nil: VLEKs are refused
}

// CPURange is a range of CPUID models of one family, both ends included.
type CPURange struct{ Family, FirstModel, LastModel byte }

func (l *ProductLine) includes(family, model byte) bool {
	for _, r := range l.CPUs {
		if r.Family == family && r.FirstModel <= model && model <= r.LastModel {
			return true
		}
	}
	return false
}

// hardwareID is the part of a CHIP_ID that certificates of this line carry.
func (l *ProductLine) hardwareID(chipID verifier.Hex) verifier.Hex {
	if l.FMC {
		return chipID[:8]
	}
	return chipID
}

// Check verifies that the line's own certificates form chains up to its ARK.
func (l *ProductLine) Check() error {
	switch {
	case l.Name == "":
		return errors.New("product line has no name")
	case len(l.CPUs) == 0:
		return fmt.Errorf("product line %s lists no processors", l.Name)
	case l.ARK == nil:
		return fmt.Errorf("product line %s has no ARK", l.Name)
	case l.ASK == nil && l.ASVK == nil:
		return fmt.Errorf("product line %s has neither ASK nor ASVK", l.Name)
	}
	for _, c := range []*x509.Certificate{l.ARK, l.ASK, l.ASVK} {
		if c == nil {
			continue
		}
		if err := signedBy(c, l.ARK); err != nil {
			return fmt.Errorf("checking %q against the ARK of %s: %w", c.Subject.CommonName, l.Name, err)
		}
	}
	return nil
}

// signedBy checks issuer name, CA bit and signature: RSA-PSS with SHA-384 is
// the only algorithm in AMD's hierarchy (57230, section 3). Validity and
// revocation change with time and are not looked at here.
func signedBy(c, issuer *x509.Certificate) error {
	switch {
	case !bytes.Equal(c.RawIssuer, issuer.RawSubject):
		return fmt.Errorf("issued by %q, expected %q", c.Issuer.CommonName, issuer.Subject.CommonName)
	case !issuer.BasicConstraintsValid || !issuer.IsCA:
		return fmt.Errorf("issuer %q is not a certificate authority", issuer.Subject.CommonName)
	case c.SignatureAlgorithm != x509.SHA384WithRSAPSS:
		return fmt.Errorf("signed with %s, expected %s", c.SignatureAlgorithm, x509.SHA384WithRSAPSS)
	}
	return issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
}

// Roots is AMD's product lines with the certificates that AMD publishes at
// kdsintf.amd.com, as go-sev-guest embeds them. Bergamo and Siena (family 19h,
// models A0h to AFh) belong to the Genoa line.
func Roots() ([]ProductLine, error) {
	lines := []ProductLine{
		{Name: "Milan", CPUs: []CPURange{{0x19, 0x00, 0x0f}}},
		{Name: "Genoa", CPUs: []CPURange{{0x19, 0x10, 0x1f}, {0x19, 0xa0, 0xaf}}},
		{Name: "Turin", CPUs: []CPURange{{0x1a, 0x00, 0x11}}, FMC: true},
	}
	bundles := [][2][]byte{
		{trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes},
		{trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes},
		{trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes},
	}
	for i := range lines {
		if err := lines[i].addBundle(bundles[i][0]); err != nil {
			return nil, err
		}
		if err := lines[i].addBundle(bundles[i][1]); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// addBundle sorts the certificates of a KDS cert_chain (PEM, ASK or ASVK then
// ARK) into the line by their names.
func (l *ProductLine) addBundle(bundle []byte) error {
	certs, err := chain.ParsePEM(bundle)
	if err != nil {
		return fmt.Errorf("parsing the %s certificate chain: %w", l.Name, err)
	}
	for _, c := range certs {
		switch c.Subject.CommonName {
		case "ARK-" + l.Name:
			if l.ARK != nil && !l.ARK.Equal(c) {
				return fmt.Errorf("two different ARKs for %s", l.Name)
			}
			l.ARK = c
		case "SEV-" + l.Name:
			l.ASK = c
		case "SEV-VLEK-" + l.Name:
			l.ASVK = c
		default:
			return fmt.Errorf("certificate %q in the %s chain", c.Subject.CommonName, l.Name)
		}
	}
	return nil
}
