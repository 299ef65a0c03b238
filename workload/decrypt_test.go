package workload

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/source"
)

// keyPair writes a private key, encrypted if pass is not empty, and its public
// half, and returns their files.
func keyPair(t testing.TB, private any, public any, pass string) (key, pub string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if r, ok := private.(*rsa.PrivateKey); ok && pass != "" {
		//lint:ignore SA1019 the form of encrypted PEM that ocicrypt reads
		if block, err = x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(r), []byte(pass), x509.PEMCipherAES256); err != nil {
			t.Fatal(err)
		}
	}
	pder, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	imagetest.WriteFile(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(block))
	imagetest.WriteFile(t, filepath.Join(dir, "pub.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pder}))
	return filepath.Join(dir, "key.pem"), filepath.Join(dir, "pub.pem")
}

func loadKeys(t testing.TB, keys ...source.DecryptionKey) *source.DecryptionKeys {
	t.Helper()
	k, err := source.LoadDecryptionKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestEncryptedSource: from an encrypted image comes the same disk as from
// the image in the clear; without its key, with another's or after a change,
// none.
func TestEncryptedSource(t *testing.T) {
	t.Parallel()
	clear := reproducibleOptions(t, &fakeServer{})
	want := mustBuild(t, clear).Registration.IdentityDigest

	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, rsaPub := keyPair(t, r, r.Public(), "")
	lockedKey, _ := keyPair(t, r, r.Public(), "hunter2")
	ecKey, ecPub := keyPair(t, e, e.Public(), "")
	encrypted := func(pub string, damage func(*imagetest.Image)) string {
		m := imagetest.App(t)
		m.Encrypt(t, pub)
		if damage != nil {
			damage(m)
		}
		dir := t.TempDir()
		m.WriteLayout(t, dir)
		for _, l := range m.Layers {
			if bytes.Contains(l.Blob, []byte(imagetest.Canary)) {
				t.Fatal("layer is not encrypted")
			}
		}
		return "oci:" + dir
	}
	build := func(from string, keys *source.DecryptionKeys) (*Result, error) {
		server := &fakeServer{}
		o := reproducibleOptions(t, server)
		o.Firmware = clear.Firmware
		o.Source, o.DecryptionKeys = from, keys
		res, err := Build(t.Context(), o)
		if err != nil {
			nothingLeft(t, o, server)
		}
		imagetest.NoCanary(t, o.TempDir)
		imagetest.Empty(t, o.TempDir)
		return res, err
	}
	for name, c := range map[string]struct {
		from string
		keys []source.DecryptionKey
	}{
		"RSA":            {encrypted(rsaPub, nil), []source.DecryptionKey{{Path: rsaKey}}},
		"RSA, locked":    {encrypted(rsaPub, nil), []source.DecryptionKey{{Path: lockedKey, Passphrase: secret.New([]byte("hunter2"))}}},
		"EC, second key": {encrypted(ecPub, nil), []source.DecryptionKey{{Path: rsaKey}, {Path: ecKey}}},
	} {
		res, err := build(c.from, loadKeys(t, c.keys...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if res.Registration.IdentityDigest != want {
			t.Errorf("%s: identity %s, in the clear %s", name, res.Registration.IdentityDigest, want)
		}
	}
	flipped := func(m *imagetest.Image) { m.Layers[1].Blob[len(m.Layers[1].Blob)/2] ^= 1 } // and the manifest says so
	swapped := func(m *imagetest.Image) { m.Layers[1].Annotations = m.Layers[2].Annotations }
	garbage := func(m *imagetest.Image) {
		m.Layers[0].Annotations = maps.Clone(m.Layers[0].Annotations)
		for k := range m.Layers[0].Annotations {
			m.Layers[0].Annotations[k] = "AAAA"
		}
	}
	for name, c := range map[string]struct {
		from string
		keys *source.DecryptionKeys
		want string
	}{
		"no key":           {encrypted(rsaPub, nil), nil, "layer 1"},
		"other key":        {encrypted(rsaPub, nil), loadKeys(t, source.DecryptionKey{Path: ecKey}), "decrypting"},
		"altered":          {encrypted(rsaPub, flipped), loadKeys(t, source.DecryptionKey{Path: rsaKey}), "layer 2"},
		"of another layer": {encrypted(rsaPub, swapped), loadKeys(t, source.DecryptionKey{Path: rsaKey}), "layer 2"},
		"broken wrapping":  {encrypted(rsaPub, garbage), loadKeys(t, source.DecryptionKey{Path: rsaKey}), "layer 1"},
	} {
		if _, err := build(c.from, c.keys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, expected %q in it", name, err, c.want)
		}
	}
	if _, err := source.LoadDecryptionKeys([]source.DecryptionKey{{Path: lockedKey}}); err == nil {
		t.Error("locked key loads without its passphrase")
	}
	if _, err := source.LoadDecryptionKeys([]source.DecryptionKey{{Path: rsaPub}}); err == nil {
		t.Error("public key taken for a private one")
	}
}

// TestSkopeoEncrypted builds from what skopeo has encrypted.
func TestSkopeoEncrypted(t *testing.T) {
	t.Parallel()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, pub := keyPair(t, r, r.Public(), "")
	o := testOptions(t, &fakeServer{})
	encrypted := "oci:" + filepath.Join(t.TempDir(), "encrypted")
	imagetest.Tool(t, "skopeo", "copy", "-q", "--policy", o.System.SignaturePolicyPath, "--encryption-key", "jwe:"+pub, o.Source, encrypted)
	if err := os.RemoveAll(strings.TrimPrefix(o.Source, "oci:")); err != nil {
		t.Fatal(err)
	}
	o.Source = encrypted
	if _, err := Build(t.Context(), o); err == nil {
		t.Fatal("builds without a key")
	}
	o.DecryptionKeys = loadKeys(t, source.DecryptionKey{Path: key})
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}
