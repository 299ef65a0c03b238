package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// A guest outlives its session. What it had attested with its TEEKey is then kept
// by itself, sealed: a ticket, which says whose RenewalKey gets secrets from then
// on. Who shows one gets a bearer for a short time, encrypted to that key. The
// server keeps nothing for it.

// Renewal is what a ticket says.
type Renewal struct {
	Session    ID             `json:"session"`
	WorkloadID string         `json:"workload_id"`
	ReportData kbs.ReportData `json:"report_data"`
	RenewalKey
	// Until is when a bearer ends, in milliseconds since 1970; a ticket does not.
	Until int64 `json:"until,omitempty"`
}

// Renewals seals and opens tickets and bearers. All servers with one secret take
// each other's.
type Renewals struct {
	secret []byte
	rand   io.Reader
	clock  func() time.Time
	life   time.Duration // of a bearer
}

const (
	ticketKind = "ccrun renewal ticket v1"
	bearerKind = "ccrun renewal bearer v1"

	renewalSalt = 32
	maxRenewal  = 8 << 10
	// BearerPrefix tells such a bearer from a session's.
	BearerPrefix = "renewal."
)

// NewRenewals takes a secret of at least 32 bytes; without one it draws its own,
// and what it has sealed ends with it.
func NewRenewals(from secret.Bytes, rand io.Reader, clock func() time.Time, life time.Duration) (*Renewals, error) {
	own := append([]byte(nil), from.Reveal()...)
	if len(own) == 0 {
		own = make([]byte, SecretSize)
		if _, err := io.ReadFull(rand, own); err != nil {
			return nil, fmt.Errorf("making the renewal key: %w", err)
		}
	}
	if len(own) < SecretSize || clock == nil || life <= 0 {
		return nil, fmt.Errorf("renewals with a secret of %d bytes, expected %d, a clock and a life", len(own), SecretSize)
	}
	return &Renewals{own, rand, clock, life}, nil
}

// Ticket is good for as long as its workload is registered.
func (r *Renewals) Ticket(x Renewal) (string, error) {
	x.Until = 0
	return r.seal(ticketKind, x)
}

// Bearer is good for one life.
func (r *Renewals) Bearer(x Renewal) (string, error) {
	x.Until = r.clock().Add(r.life).UnixMilli()
	b, err := r.seal(bearerKind, x)
	return BearerPrefix + b, err
}

// ParseTicket takes what Ticket made; ErrExpired is everything else.
func (r *Renewals) ParseTicket(s string) (Renewal, error) {
	x, err := r.open(ticketKind, s)
	if err == nil && x.Until != 0 {
		err = ErrExpired
	}
	return x, err
}

// ParseBearer takes what Bearer made not longer than a life ago.
func (r *Renewals) ParseBearer(s string) (Renewal, error) {
	s, ok := strings.CutPrefix(s, BearerPrefix)
	if !ok {
		return Renewal{}, ErrExpired
	}
	x, err := r.open(bearerKind, s)
	if now := r.clock(); err == nil && (x.Until <= now.UnixMilli() || x.Until > now.Add(2*r.life).UnixMilli()) {
		return Renewal{}, ErrExpired
	}
	return x, err
}

func (r *Renewals) seal(kind string, x Renewal) (string, error) {
	plain, err := kbs.Canonical(x)
	if err != nil {
		return "", err
	}
	salt := make([]byte, renewalSalt)
	if _, err := io.ReadFull(r.rand, salt); err != nil {
		return "", err
	}
	aead, err := r.aead(kind, salt)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(aead.Seal(salt, make([]byte, aead.NonceSize()), plain, nil)), nil
}

func (r *Renewals) open(kind, s string) (x Renewal, err error) {
	if len(s) > maxRenewal {
		return x, ErrExpired
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < renewalSalt {
		return x, ErrExpired
	}
	aead, err := r.aead(kind, b[:renewalSalt])
	if err != nil {
		return x, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), b[renewalSalt:], nil)
	if err != nil {
		return x, ErrExpired
	}
	if err := kbs.UnmarshalStrict(plain, &x); err != nil {
		return Renewal{}, errors.Join(ErrExpired, err)
	}
	return x, nil
}

// aead has a key for one message: so a nonce is never used twice.
func (r *Renewals) aead(kind string, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, r.secret, salt, kind, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
