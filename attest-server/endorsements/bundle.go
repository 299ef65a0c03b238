package endorsements

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// Bundle is Endorsements held in memory, sorted by content: certificates of
// endorsement keys, CRLs and Intel collateral. It implements snp.Endorsements
// and tdx.CollateralSource. Nothing in it is trusted before a Verifier checked it.
type Bundle struct {
	veks       []storedVEK
	crls       []*x509.RevocationList
	collateral map[string][]*tdx.Collateral // by FMSPC, lower case
	skipped    []string
}

type storedVEK struct {
	der   []byte
	facts snp.Facts
}

// LoadBundle reads every file of fsys. Files that are no Endorsements are
// passed over: Skipped names them.
func LoadBundle(fsys fs.FS) (*Bundle, error) {
	b := &Bundle{}
	err := walkSmall(fsys, func(name string, content []byte) error {
		if content == nil || b.Add(content) == 0 {
			b.skipped = append(b.skipped, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading endorsements: %w", err)
	}
	return b, nil
}

// Add takes in whatever Endorsements content holds and says how many:
// certificates and CRLs in DER and PEM, one after the other in any order, a
// GHCB certificate table (configfs' auxblob), one *.collateral.json, or
// PcsClientTool's platform_collaterals.json.
func (b *Bundle) Add(content []byte) int {
	if trimmed := bytes.TrimSpace(content); len(trimmed) > 0 && trimmed[0] == '{' {
		parts, is := splitPlatforms("", trimmed)
		if !is {
			return b.addCollateral(trimmed)
		}
		n := 0
		for _, p := range parts {
			n += b.addCollateral(p.content)
		}
		return n
	}
	if n := b.addTable(content); n > 0 {
		return n
	}
	n := 0
	for len(content) > 0 {
		// Text may begin like DER does ('0' is a SEQUENCE's tag), so what is
		// no Endorsement is not stepped over.
		if der, rest := firstDER(content); der != nil && b.addDER(der) > 0 {
			n, content = n+1, rest
			continue
		}
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		n, content = n+b.addDER(block.Bytes), rest
	}
	return n
}

// firstDER is the DER SEQUENCE that content begins with, but for white space.
func firstDER(content []byte) (der, rest []byte) {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(bytes.TrimLeft(content, " \t\r\n"), &v)
	if err != nil || v.Tag != asn1.TagSequence || v.Class != asn1.ClassUniversal {
		return nil, content
	}
	return v.FullBytes, rest
}

// addTable takes the certificates out of a table such as a host hands out.
func (b *Bundle) addTable(content []byte) int {
	certs, err := snp.CertTable(content, verifier.VCEK, verifier.VLEK)
	if err != nil {
		return 0
	}
	n := 0
	for _, der := range certs {
		n += b.addDER(der)
	}
	return n
}

func (b *Bundle) addDER(der []byte) int {
	if c, err := x509.ParseCertificate(der); err == nil {
		if facts, err := snp.ParseFacts(c); err == nil {
			b.veks = append(b.veks, storedVEK{der: bytes.Clone(der), facts: facts})
		}
		return 1 // any other certificate is a root or link that we pin
	}
	if crl, err := x509.ParseRevocationList(der); err == nil {
		b.crls = append(b.crls, crl)
		return 1
	}
	return 0
}

func (b *Bundle) addCollateral(content []byte) int {
	c, err := tdx.ParseCollateral(content)
	if err != nil {
		return 0
	}
	fmspc, err := c.FMSPC()
	if err != nil {
		return 0
	}
	if b.collateral == nil {
		b.collateral = map[string][]*tdx.Collateral{}
	}
	b.collateral[fmspc] = append(b.collateral[fmspc], c)
	return 1
}

// CRLs is every CRL of the bundle, for snp.Options. Intel's come with the
// collateral.
func (b *Bundle) CRLs() []*x509.RevocationList { return b.crls }

// Skipped names the files that hold no Endorsements.
func (b *Bundle) Skipped() []string { return b.skipped }

// Collateral implements tdx.CollateralSource.
func (b *Bundle) Collateral(_ context.Context, fmspc, _ string) ([]*tdx.Collateral, error) {
	c := b.collateral[strings.ToLower(fmspc)]
	if len(c) == 0 {
		return nil, verifier.ErrNoEndorsement
	}
	return c, nil
}

// maxCandidates bounds the certificates tried for one report.
const maxCandidates = 16

// Candidates implements snp.Endorsements: the certificates for this very key, the
// latest added first; if there is none, one for another TCB, or the only one
// for another chip, which surely is meant for this report.
func (b *Bundle) Candidates(_ context.Context, k snp.EndorsementKey) ([][]byte, error) {
	chip, line := b.fitting(k, snp.FitsChip), b.fitting(k, snp.FitsLine)
	switch exact := b.fitting(k, snp.FitsKey); {
	case len(exact) > 0:
		return exact, nil
	case len(chip) > 0:
		return chip[:1], nil
	case len(line) == 1:
		return line, nil
	}
	return nil, verifier.ErrNoEndorsement
}

func (b *Bundle) fitting(k snp.EndorsementKey, fit snp.Fit) [][]byte {
	var all [][]byte
	for _, v := range slices.Backward(b.veks) {
		if v.facts.Fit(k) == fit && len(all) < maxCandidates {
			all = append(all, v.der)
		}
	}
	return all
}
