package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Limits on an imported bundle.
const (
	maxBundleFile  = 1 << 20 // bytes; larger files are passed over
	maxBundleFiles = 4096
	maxBundleSize  = 64 << 20
)

// Bundle is Endorsements held in memory, sorted by content: certificates of
// endorsement keys, CRLs and Intel collateral. It implements Endorsements and
// CollateralSource. Nothing in it is trusted before a Verifier checked it.
type Bundle struct {
	veks       []storedVEK
	crls       []*x509.RevocationList
	collateral map[string][]*Collateral // by FMSPC, lower case
	skipped    []string
}

type storedVEK struct {
	der   []byte
	facts vekFacts
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

// readSmall is the content of a regular file, or nil if it is too large.
func readSmall(fsys fs.FS, name string) ([]byte, error) {
	// Before opening: to open a named pipe would wait for ever.
	if info, err := fs.Stat(fsys, name); err != nil || !info.Mode().IsRegular() || info.Size() > maxBundleFile {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBundleFile))
}

// Add takes in whatever Endorsements content holds and says how many: DER or
// PEM certificates and CRLs, or one *.collateral.json.
func (b *Bundle) Add(content []byte) int {
	switch trimmed := bytes.TrimSpace(content); {
	case len(trimmed) == 0:
		return 0
	case trimmed[0] == '{':
		return b.addCollateral(trimmed)
	case bytes.Contains(trimmed, []byte("-----BEGIN ")):
		n := 0
		for block, rest := pem.Decode(trimmed); block != nil; block, rest = pem.Decode(rest) {
			n += b.addDER(block.Bytes)
		}
		return n
	default:
		return b.addDER(content)
	}
}

func (b *Bundle) addDER(der []byte) int {
	if c, err := x509.ParseCertificate(der); err == nil {
		if facts, err := parseVEKFacts(c); err == nil {
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
	c, err := ParseCollateral(content)
	if err != nil {
		return 0
	}
	fmspc, err := c.fmspc()
	if err != nil {
		return 0
	}
	if b.collateral == nil {
		b.collateral = map[string][]*Collateral{}
	}
	b.collateral[fmspc] = append(b.collateral[fmspc], c)
	return 1
}

// CRLs is every CRL of the bundle, for SNPOptions. Intel's come with the
// collateral.
func (b *Bundle) CRLs() []*x509.RevocationList { return b.crls }

// Skipped names the files that hold no Endorsements.
func (b *Bundle) Skipped() []string { return b.skipped }

// Collateral implements CollateralSource.
func (b *Bundle) Collateral(_ context.Context, fmspc, _ string) ([]*Collateral, error) {
	c := b.collateral[strings.ToLower(fmspc)]
	if len(c) == 0 {
		return nil, ErrNoEndorsement
	}
	return c, nil
}

// VCEK implements Endorsements. If the chip has no certificate for tcb, one
// for another TCB is returned, which Verify refuses with a better reason.
func (b *Bundle) VCEK(_ context.Context, product string, chipID []byte, tcb kbs.SNPTCB) ([]byte, error) {
	return b.find(product, VCEK, isChip(chipID), tcb)
}

// VLEK implements Endorsements.
func (b *Bundle) VLEK(_ context.Context, product string, tcb kbs.SNPTCB) ([]byte, error) {
	return b.find(product, VLEK, func(vekFacts) bool { return true }, tcb)
}

func (b *Bundle) find(product, signer string, match func(vekFacts) bool, tcb kbs.SNPTCB) ([]byte, error) {
	var near, lone []byte
	others := 0
	if der := b.exact(product, signer, match, tcb); der != nil {
		return der, nil
	}
	for _, k := range b.veks {
		if k.facts.signer != signer || !k.facts.isOf(product) {
			continue
		}
		if !match(k.facts) {
			lone, others = k.der, others+1
			continue
		}
		near = k.der
	}
	switch {
	case near != nil:
		return near, nil
	case others == 1: // surely meant for this report: let Verify say what is wrong
		return lone, nil
	}
	return nil, ErrNoEndorsement
}

// exact is the certificate for this very TCB, or nil.
func (b *Bundle) exact(product, signer string, match func(vekFacts) bool, tcb kbs.SNPTCB) []byte {
	for _, k := range slices.Backward(b.veks) { // the latest added wins
		if k.facts.signer == signer && k.facts.isOf(product) && match(k.facts) && k.facts.tcb == tcb {
			return k.der
		}
	}
	return nil
}
