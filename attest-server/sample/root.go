package sample

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lifetime of the whole chain: that of AMD's VCEKs.
const lifetime = 7 * 365 * 24 * time.Hour

// platform is everything Create makes.
type platform struct {
	ark, ask, vcek          *x509.Certificate
	arkKey, askKey, vcekKey crypto.Signer
}

// Create makes a simulated platform in dir at time now: an ARK, an ASK and a
// VCEK with fresh keys. It takes some seconds (two RSA-4096 keys). dir may hold
// other things, such as firmware, but no platform: that is fs.ErrExist. The
// platform is there whole or not at all.
func Create(dir string, now time.Time) error {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		err := lacksPlatform(dir) // before the seconds that a key takes
		if err == nil {
			keys[i], err = rsa.GenerateKey(rand.Reader, 4096)
		}
		if err != nil {
			return fmt.Errorf("creating simulated platform: %w", err)
		}
	}
	return CreateWith(dir, now, keys[0], keys[1])
}

// CreateWith is Create with given keys of the ARK and the ASK.
func CreateWith(dir string, now time.Time, ark, ask crypto.Signer) error {
	if err := create(dir, now, ark, ask); err != nil {
		return fmt.Errorf("creating simulated platform: %w", err)
	}
	return nil
}

func create(dir string, now time.Time, ark, ask crypto.Signer) error {
	if err := lacksPlatform(dir); err != nil {
		return err
	}
	p, err := newPlatform(now, ark, ask)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".ccrun-sim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // nothing left of it after the renames
	if err := p.write(tmp); err != nil {
		return err
	}
	return install(tmp, dir)
}

// lacksPlatform goes by the chip, which install puts there last.
func lacksPlatform(dir string) error {
	chip := filepath.Join(dir, ChipDir)
	_, err := os.Lstat(chip)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", chip, fs.ErrExist)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// install moves a platform from tmp to dir, one process at a time. What a killed
// one left there has no chip, and nobody knows its roots.
func install(tmp, dir string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	if err := lacksPlatform(dir); err != nil {
		return err
	}
	for _, d := range []string{PrivateDir, RootsDir, ChipDir} {
		to := filepath.Join(dir, d)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(tmp, d), to); err != nil {
			return err
		}
	}
	return nil
}

// Ensure is Create unless dir already holds a platform.
func Ensure(dir string, now time.Time) error {
	_, err := OpenAttester(dir)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, ErrNoRoot):
		return err
	}
	err = Create(dir, now)
	if errors.Is(err, fs.ErrExist) { // another process was quicker
		_, err = OpenAttester(dir)
	}
	return err
}

// write lays p out below dir. Keys are readable by their owner only.
func (p *platform) write(dir string) error {
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
		{filepath.Join(ChipDir, vcekKeyFile), p.vcekKey},
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

func newPlatform(now time.Time, ark, ask crypto.Signer) (*platform, error) {
	p := &platform{arkKey: ark, askKey: ask}
	var err error
	if p.vcekKey, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		return nil, err
	}
	if p.ark, err = issue(authority("ARK", now), nil, p.arkKey.Public(), p.arkKey); err != nil {
		return nil, err
	}
	if p.ask, err = issue(authority("ASK", now), p.ark, p.askKey.Public(), p.arkKey); err != nil {
		return nil, err
	}
	leaf, err := endorsement(now)
	if err != nil {
		return nil, err
	}
	p.vcek, err = issue(leaf, p.ask, p.vcekKey.Public(), p.askKey)
	return p, err
}

// template is what the three certificates have in common. AMD's have the
// same form and algorithm; the names say whose these are.
func template(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
		Subject: pkix.Name{
			CommonName:         name,
			Organization:       []string{"ccrun SIMULATED TEE – protects nothing"},
			OrganizationalUnit: []string{"not AMD"},
		},
		NotBefore: now.Add(-24 * time.Hour).UTC(),
		NotAfter:  now.Add(lifetime).UTC(),
	}
}

func authority(name string, now time.Time) *x509.Certificate {
	c := template("ccrun SIMULATED "+name+" – protects nothing", now)
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return c
}

func endorsement(now time.Time) (*x509.Certificate, error) {
	var id ChipID
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	c := template("SEV-VCEK", now) // the name by which verifiers know the kind of key
	var err error
	c.ExtraExtensions, err = genoa().extensions(id)
	return c, err
}

func issue(c, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	c.SerialNumber = serial
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
