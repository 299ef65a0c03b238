package sample

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/bounded"
)

// write lays p out below dir. Keys are readable by their owner only.
func (p *platform) write(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{{RootsDir, 0o755}, {ChipDir, 0o700}, {PrivateDir, 0o700}} {
		if err := os.Mkdir(filepath.Join(dir, d.name), d.mode); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		name string
		cert *x509.Certificate
	}{
		{filepath.Join(RootsDir, arkFile), p.ark}, {filepath.Join(RootsDir, askFile), p.ask},
		{filepath.Join(ChipDir, arkFile), p.ark}, {filepath.Join(ChipDir, askFile), p.ask},
		{filepath.Join(ChipDir, vcekFile), p.vcek},
	} {
		if err := writePEM(filepath.Join(dir, c.name), "CERTIFICATE", c.cert.Raw, 0o644); err != nil {
			return err
		}
	}
	for _, k := range []struct {
		name string
		key  crypto.Signer
	}{
		{filepath.Join(PrivateDir, "ark-key.pem"), p.arkKey},
		{filepath.Join(PrivateDir, "ask-key.pem"), p.askKey},
		{filepath.Join(ChipDir, keyFile), p.vcekKey},
	} {
		der, err := x509.MarshalPKCS8PrivateKey(k.key)
		if err != nil {
			return err
		}
		if err := writePEM(filepath.Join(dir, k.name), "PRIVATE KEY", der, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	return errors.Join(err, f.Sync(), f.Close())
}

// maxPEM bounds what is read of a file of the platform.
const maxPEM = 64 << 10

// readPEM returns the DER of the one PEM block of a kind that path holds.
func readPEM(path, kind string) ([]byte, error) {
	b, err := bounded.File(path, maxPEM)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(rest) != 0 {
		return nil, fmt.Errorf("%s: expected one PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}
