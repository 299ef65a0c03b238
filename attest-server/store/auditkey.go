package store

import (
	"crypto/ed25519"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/secret"
)

// drawSeed draws the seed of a key that signs the audit log.
func drawSeed(rand io.Reader) (secret.Bytes, error) {
	b := make([]byte, ed25519.SeedSize)
	_, err := io.ReadFull(rand, b)
	return secret.New(b), err
}

// asAuditKey wipes seed.
func asAuditKey(seed secret.Bytes) (ed25519.PrivateKey, error) {
	defer seed.Wipe()
	if seed.Len() != ed25519.SeedSize {
		return nil, fmt.Errorf("opening audit signing key: %w", ErrTampered)
	}
	return ed25519.NewKeyFromSeed(seed.Reveal()), nil
}
