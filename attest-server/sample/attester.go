package sample

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	spb "github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Attester plays the secure processor: it signs what it is told.
type Attester struct {
	chip    chip
	id      ChipID
	vcekKey *ecdsa.PrivateKey
	table   []byte // GHCB certificate table
}

// OpenAttester opens the chip of the platform in dir. ErrNoRoot if there is
// none.
func OpenAttester(dir string) (*Attester, error) {
	a, err := OpenChip(filepath.Join(dir, ChipDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening simulated platform %s: %w; run `ccrun-sim init --sample-root %s`", dir, ErrNoRoot, dir)
	}
	return a, err
}

// OpenChip is OpenAttester for a ChipDir on its own.
func OpenChip(dir string) (*Attester, error) {
	var certs [3]*x509.Certificate
	for i, name := range []string{arkFile, askFile, vcekFile} {
		c, err := readCertificate(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("opening simulated chip: %w", err)
		}
		certs[i] = c
	}
	der, err := readPEM(filepath.Join(dir, vcekKeyFile), "PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("opening simulated chip: %w", err)
	}
	a, err := newAttester(certs[0], certs[1], certs[2], der)
	if err != nil {
		return nil, fmt.Errorf("opening simulated chip %s: %w", dir, err)
	}
	return a, nil
}

func newAttester(ark, ask, vcek *x509.Certificate, pkcs8 []byte) (*Attester, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("VCEK key is not PKCS #8") // never the parser's words about a key
	}
	vcekKey, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !vcekKey.PublicKey.Equal(vcek.PublicKey) {
		return nil, errors.New("VCEK key does not belong to the VCEK certificate")
	}
	exts, err := kds.VcekCertificateExtensions(vcek)
	if err != nil {
		return nil, fmt.Errorf("reading VCEK extensions: %w", err)
	}
	a := &Attester{chip: genoa(), vcekKey: vcekKey}
	if want := uint64(exts.TCBVersion); want != a.chip.tcb() {
		return nil, fmt.Errorf("VCEK is for TCB %#x, this program simulates %#x: make a new platform", want, a.chip.tcb())
	}
	copy(a.id[:], exts.HWID)
	a.table = abi.CertsFromProto(&spb.CertificateChain{
		ArkCert: ark.Raw, AskCert: ask.Raw, VcekCert: vcek.Raw,
	}).Marshal()
	return a, nil
}

// NewLaunch is a guest launched with the default policy and this digest.
func NewLaunch(d kbs.LaunchDigest) (Launch, error) {
	l := Launch{Digest: d, Policy: DefaultPolicy}
	if _, err := rand.Read(l.ReportID[:]); err != nil {
		return Launch{}, fmt.Errorf("choosing report id: %w", err)
	}
	return l, l.check()
}

// Sign makes the Evidence that a guest launched as l gets for data: a report
// of ReportSize bytes and the certificate table, of TEE sample.
func (a *Attester) Sign(data kbs.ReportData, l Launch) (kbs.Evidence, error) {
	if err := l.check(); err != nil {
		return kbs.Evidence{}, err
	}
	report := a.chip.unsigned(a.id, data, l)
	digest := sha512.Sum384(report[:signedSize])
	r, s, err := ecdsa.Sign(rand.Reader, a.vcekKey, digest[:])
	if err != nil {
		return kbs.Evidence{}, fmt.Errorf("signing report: %w", err)
	}
	if err := abi.SetSignature(r, s, report); err != nil {
		return kbs.Evidence{}, fmt.Errorf("signing report: %w", err)
	}
	return kbs.Evidence{TEE: kbs.Sample, Report: report, Certificates: append([]byte(nil), a.table...)}, nil
}
