package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/secret"
)

const signingKeyName = "result signing key"

// SigningKey is the ECDSA P-256 key that attestation results are signed with.
// It is made on first use, which is at init, and kept sealed.
func (s *DB) SigningKey(ctx context.Context) (*ecdsa.PrivateKey, error) {
	if s.sealer == nil {
		return nil, fmt.Errorf("reading signing key: %w", ErrLocked)
	}
	k, err := s.readSigningKey(ctx)
	if !errors.Is(err, ErrNotFound) {
		return k, err
	}
	if err := s.makeSigningKey(ctx); err != nil {
		return nil, fmt.Errorf("making signing key: %w", err)
	}
	return s.readSigningKey(ctx)
}

func (s *DB) readSigningKey(ctx context.Context) (*ecdsa.PrivateKey, error) {
	var sealed []byte
	err := s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", signingKeyName).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("signing key: %w", ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading signing key: %w", err)
	}
	der, err := s.sealer.open(sealed, location("meta", signingKeyName))
	if err != nil {
		return nil, fmt.Errorf("opening signing key: %w", ErrTampered)
	}
	defer der.Wipe()
	k, err := x509.ParsePKCS8PrivateKey(der.Reveal())
	ec, ok := k.(*ecdsa.PrivateKey)
	if err != nil || !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("opening signing key: not on curve P-256: %w", ErrTampered)
	}
	return ec, nil
}

// makeSigningKey leaves a key alone that another process made meanwhile.
func (s *DB) makeSigningKey(ctx context.Context) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), s.opts.Rand)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	held := secret.New(der)
	defer held.Wipe()
	sealed, err := s.sealer.seal(held, location("meta", signingKeyName))
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO NOTHING", signingKeyName, sealed)
		return err
	})
}
