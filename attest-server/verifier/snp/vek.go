package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
)

// VEK is a versioned endorsement key's certificate that a pinned chain
// vouches for, decoded.
type VEK struct {
	cert    *x509.Certificate
	Line    *ProductLine
	issuer  *x509.Certificate // ASK or ASVK
	Facts   Facts
	details []verifier.Certificate
}

// Facts is what the KDS wrote into a VCEK or VLEK (57230, section 3.1).
type Facts struct {
	Signer     string // VCEK or VLEK
	Product    string // e.g. "Milan-B0"; "Milan" in a VLEK
	TCB        kbs.SNPTCB
	HardwareID []byte // VCEK: 64 bytes, Turin 8
	Provider   string // VLEK
}

// isOf says whether the certificate is for the product line: the KDS writes
// "Milan" or, with the stepping, "Milan-B0".
func (f Facts) isOf(line string) bool { return strings.HasPrefix(f.Product+"-", line+"-") }

// Fit says how near a certificate comes to a key.
type Fit int

// Each includes those before it.
const (
	FitsNot  Fit = iota
	FitsLine     // the same kind of key, of the product line
	FitsChip     // of the chip; every VLEK of the line
	FitsKey      // at the TCB
)

// Fit compares what the certificate says of itself with k.
func (f Facts) Fit(k EndorsementKey) Fit {
	switch {
	case f.Signer != k.Signer || !f.isOf(k.Product):
		return FitsNot
	case f.Signer == verifier.VCEK && !bytes.Equal(f.HardwareID, k.ChipID):
		return FitsLine
	case f.TCB != k.TCB:
		return FitsChip
	}
	return FitsKey
}

// The KDS' extensions, all under 1.3.6.1.4.1.3704.1. go-sev-guest v0.15.0
// knows neither the FMC nor a hardware id of 8 bytes, so they are read here.
const kdsArc = "1.3.6.1.4.1.3704.1."

// ParseFacts reads the KDS extensions of c. It does not check signatures.
func ParseFacts(c *x509.Certificate) (Facts, error) {
	f := Facts{}
	switch c.Subject.CommonName {
	case "SEV-VCEK":
		f.Signer = verifier.VCEK
	case "SEV-VLEK":
		f.Signer = verifier.VLEK
	default:
		return f, fmt.Errorf("certificate is for %q, expected SEV-VCEK or SEV-VLEK", c.Subject.CommonName)
	}
	if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() {
		return f, errors.New("public key is not on curve P-384")
	}
	seen := map[string]bool{}
	for _, e := range c.Extensions {
		name, ok := strings.CutPrefix(e.Id.String(), kdsArc)
		if !ok {
			continue
		}
		if seen[name] {
			return f, fmt.Errorf("extension %s%s appears twice", kdsArc, name)
		}
		seen[name] = true
		if err := f.set(name, e.Value); err != nil {
			return f, fmt.Errorf("reading extension %s%s: %w", kdsArc, name, err)
		}
	}
	for _, name := range []string{"2", "3.1", "3.2", "3.3", "3.8"} {
		if !seen[name] {
			return f, fmt.Errorf("extension %s%s is missing", kdsArc, name)
		}
	}
	if (f.Signer == verifier.VCEK) != (f.HardwareID != nil) {
		return f, errors.New("a VCEK, and only a VCEK, has a hardware id")
	}
	return f, nil
}

func (f *Facts) set(name string, value []byte) (err error) {
	switch name {
	case "2":
		err = unmarshalAll(value, &f.Product, "ia5")
	case "3.1":
		f.TCB.Bootloader, err = derByte(value)
	case "3.2":
		f.TCB.TEE, err = derByte(value)
	case "3.3":
		f.TCB.SNP, err = derByte(value)
	case "3.4", "3.5", "3.6", "3.7": // reserved
		var b byte
		if b, err = derByte(value); err == nil && b != 0 {
			err = fmt.Errorf("reserved security version is %d, expected 0", b)
		}
	case "3.8":
		f.TCB.Microcode, err = derByte(value)
	case "3.9":
		f.TCB.FMC, err = derByte(value)
	case "4": // raw bytes, not DER
		if len(value) != 64 && len(value) != 8 {
			return fmt.Errorf("hardware id of %d bytes, expected 64 or 8", len(value))
		}
		f.HardwareID = value
	case "5":
		err = unmarshalAll(value, &f.Provider, "ia5")
	default: // a part of the TCB not known here could be out of date unseen
		if strings.HasPrefix(name, "3.") {
			err = errors.New("unknown security version")
		}
	}
	return err
}

func derByte(b []byte) (v byte, err error) {
	var n int
	if err = unmarshalAll(b, &n, ""); err == nil && (n < 0 || n > 255) {
		err = fmt.Errorf("%d, expected 0 to 255", n)
	}
	return byte(n), err
}

func unmarshalAll(b []byte, v any, params string) error {
	rest, err := asn1.UnmarshalWithParams(b, v, params)
	if err == nil && len(rest) != 0 {
		err = errors.New("data after the value")
	}
	return err
}

// Endorse parses der and finds the product line whose ASK or ASVK signed it.
func Endorse(der []byte, lines []*ProductLine) (*VEK, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, chainError("an X.509 certificate", "unreadable bytes", err)
	}
	facts, err := ParseFacts(c)
	if err != nil {
		return nil, chainError("a VCEK or VLEK from AMD's KDS", fmt.Sprintf("%q", c.Subject.CommonName), err)
	}
	for _, l := range lines {
		issuer := l.ASK
		if facts.Signer == verifier.VLEK {
			issuer = l.ASVK
		}
		if issuer == nil || !facts.isOf(l.Name) {
			continue
		}
		if err = signedBy(c, issuer); err == nil {
			return &VEK{cert: c, Line: l, issuer: issuer, Facts: facts,
				details: chain.Describe(l.ARK, issuer, c)}, nil
		}
	}
	return nil, chainError("a "+facts.Signer+" signed by the pinned key of "+names(lines),
		fmt.Sprintf("product %q, issuer %q, sha256 %x", facts.Product, c.Issuer.CommonName, sha256.Sum256(der)), err)
}

func chainError(expected, got string, err error) error {
	return verifier.Refuse("certificate_chain", expected, got,
		"the certificate does not come from AMD for this processor: fetch it from AMD's KDS", err)
}

func names(lines []*ProductLine) string {
	var s []string
	for _, l := range lines {
		s = append(s, l.Name)
	}
	return strings.Join(s, ", ")
}

// EndorsementKey names the key that signs reports: the VCEK of a chip, or the
// VLEK of a provider, at a TCB.
type EndorsementKey struct {
	Product string       // product line
	Signer  string       // VCEK or VLEK
	ChipID  verifier.Hex // of a VCEK: 64 bytes, on Turin 8; empty if the report masks it
	TCB     kbs.SNPTCB
}
