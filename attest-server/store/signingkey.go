package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"

	"github.com/ccrun/ccrun/secret"
)

// SigningKey is the ECDSA P-256 key that attestation results are signed with.
// It is made on first use, which is at init, and kept sealed.
func (s *DB) SigningKey(ctx context.Context) (*ecdsa.PrivateKey, error) {
	der, err := s.values.readOrMake(ctx, signingKeyName, s.drawSigningKey)
	if err != nil {
		return nil, err
	}
	defer der.Wipe()
	k, err := x509.ParsePKCS8PrivateKey(der.Reveal())
	ec, ok := k.(*ecdsa.PrivateKey)
	if err != nil || !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("opening signing key: not on curve P-256: %w", ErrTampered)
	}
	return ec, nil
}

func (s *DB) drawSigningKey() (secret.Bytes, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), s.rand)
	if err != nil {
		return secret.Bytes{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	return secret.New(der), err
}
