package sample

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/bounded"
)

// NewVerifier verifies Evidence of TEE sample that the platform in dir signed:
// the very checks of SNP under other roots, so that the whole SNP path runs.
func NewVerifier(dir string) (*snp.Verifier, error) {
	lines, err := testLines(filepath.Join(dir, RootsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening simulated platform %s: %w; run `ccrun-sim init --sample-root %s`", dir, ErrNoRoot, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening simulated platform %s: %w", dir, err)
	}
	return snp.New(snp.Options{TEE: kbs.Sample, Roots: lines})
}

// NewSNPVerifier is snp.New(o) with one more root, in dir, besides
// AMD's: PEM files (*.pem, *.crt) with one self-signed ARK and the ASK or ASVK
// below it. Only a simulation may have that; it lets foreign clients be tested
// without hardware.
func NewSNPVerifier(dir string, o snp.Options) (*snp.Verifier, error) {
	lines, err := snp.Roots()
	if err != nil {
		return nil, err
	}
	test, err := testLines(dir)
	if err != nil {
		return nil, fmt.Errorf("reading test root %s: %w", dir, err)
	}
	o.TEE, o.Roots = kbs.SNP, append(lines, test...)
	return snp.New(o)
}

// testLines is AMD's product lines with the certificates in dir for roots. All
// lines have the same: a simulated chip may be of any.
func testLines(dir string) ([]snp.ProductLine, error) {
	certs, err := readRoots(dir)
	if err != nil {
		return nil, err
	}
	var ark, ask, asvk *x509.Certificate
	for _, c := range certs {
		slot := &ask
		switch {
		case string(c.RawSubject) == string(c.RawIssuer):
			slot = &ark
		case strings.Contains(c.Subject.CommonName, "VLEK"):
			slot = &asvk
		}
		if *slot != nil && !(*slot).Equal(c) {
			return nil, fmt.Errorf("certificates %q and %q are for the same place in the chain", (*slot).Subject.CommonName, c.Subject.CommonName)
		}
		*slot = c
	}
	lines, err := snp.Roots()
	if err != nil {
		return nil, err
	}
	for i := range lines {
		lines[i].ARK, lines[i].ASK, lines[i].ASVK = ark, ask, asvk
	}
	return lines, nil
}

// maxRootFiles bounds how many files of a root directory are read.
const maxRootFiles = 64

// readRoots reads every certificate in dir's PEM files.
func readRoots(dir string) ([]*x509.Certificate, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxRootFiles {
		return nil, fmt.Errorf("%d files, at most %d expected", len(entries), maxRootFiles)
	}
	var certs []*x509.Certificate
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".pem" && ext != ".crt" {
			continue
		}
		b, err := bounded.File(filepath.Join(dir, e.Name()), maxPEM)
		if err != nil {
			return nil, err
		}
		found, err := parseCertificates(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		certs = append(certs, found...)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificates in *.pem or *.crt files")
	}
	return certs, nil
}

// parseCertificates takes the certificates out of a PEM file that may hold
// other things.
func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return certs, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
}
