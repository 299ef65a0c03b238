package referrers

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

const maxKeyFileBytes = 64 << 10

// SigningKey is a private key of cosign, skopeo or podman.
type SigningKey struct {
	path       string
	passphrase secret.Bytes
	signer     crypto.Signer
}

// LoadSigningKey reads the file that `skopeo generate-sigstore-key` or `cosign
// generate-key-pair` made.
func LoadSigningKey(path string, passphrase secret.Bytes) (*SigningKey, error) {
	b, err := bounded.File(path, maxKeyFileBytes)
	if err != nil {
		return nil, fmt.Errorf("reading signing key: %w", err)
	}
	p, _ := pem.Decode(b)
	if p == nil || p.Type != "ENCRYPTED SIGSTORE PRIVATE KEY" && p.Type != "ENCRYPTED COSIGN PRIVATE KEY" {
		return nil, hint.With(fmt.Errorf("signing key %s: no sigstore private key in it", path), "`skopeo generate-sigstore-key` makes one")
	}
	der, err := encrypted.Decrypt(p.Bytes, passphrase.Reveal())
	if err != nil {
		return nil, hint.With(fmt.Errorf("decrypting signing key %s: %w", path, err), "check --sign-passphrase-file")
	}
	defer clear(der)
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading signing key %s: %w", path, err)
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("signing key %s: a %T cannot sign", path, k)
	}
	return &SigningKey{path, passphrase, signer}, nil
}

// Sigstore is the key in the form that containers/image signs with.
func (k *SigningKey) Sigstore() (path string, passphrase []byte) {
	return k.path, k.passphrase.Reveal()
}

// PublicPEM is the public half, as verifiers take it.
func (k *SigningKey) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// Sign wraps payload in an envelope.
func (k *SigningKey) Sign(payloadType string, payload []byte) ([]byte, error) {
	message := dsseMessage(payloadType, payload)
	hash := crypto.Hash(0)
	if _, ok := k.signer.Public().(ed25519.PublicKey); !ok {
		sum := sha256.Sum256(message)
		message, hash = sum[:], crypto.SHA256
	}
	sig, err := k.signer.Sign(rand.Reader, message, hash)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return kbs.Canonical(envelope{payloadType, payload, []dsseSignature{{Sig: sig}}})
}

// ReadPublicKey reads a PEM file with one public key.
func ReadPublicKey(path string) (crypto.PublicKey, error) {
	b, err := bounded.File(path, maxKeyFileBytes)
	if err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	p, rest := pem.Decode(b)
	if p == nil || p.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("public key %s: %w", path, errors.Join(errors.New("no PEM public key in it"), os.ErrInvalid))
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, fmt.Errorf("public key %s: more than one in it", path)
	}
	return x509.ParsePKIXPublicKey(p.Bytes)
}
