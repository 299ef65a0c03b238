package session

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Tokens signs what a CoCo client gets for its Evidence and may show instead
// of its cookie: a JWT (ES256) that names the session. It says nothing of the
// guest and is worth nothing without the TEE's key, to which all answers are
// encrypted. The key is derived from the sessions' secret.
type Tokens struct {
	signing *ecdsa.PrivateKey
	rand    io.Reader
}

const (
	tokenHeader = `{"alg":"ES256","typ":"JWT"}`
	tokenIssuer = "ccrun attest-server"
	coordinate  = 32 // bytes of r and of s
)

type tokenClaims struct {
	Issuer    string `json:"iss"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
	Session   string `json:"jti"`
}

func newTokens(secret []byte, rand io.Reader) (*Tokens, error) {
	for i := byte(0); i < 8; i++ { // one in 2^32 is no scalar of the curve
		b, err := hkdf.Key(sha256.New, secret, []byte{i}, "ccrun session token v1", coordinate)
		if err != nil {
			return nil, fmt.Errorf("deriving the token key: %w", err)
		}
		signing, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b)
		clear(b)
		if err == nil {
			return &Tokens{signing: signing, rand: rand}, nil
		}
	}
	return nil, errors.New("deriving the token key: no scalar of P-256 among eight")
}

// IssueToken makes the token of session id, good for one life.
func (t *Tokens) IssueToken(id ID, now time.Time, life time.Duration) (string, error) {
	claims, err := json.Marshal(tokenClaims{
		Issuer: tokenIssuer, IssuedAt: now.Unix(), NotBefore: now.Unix(), Expires: now.Add(life).Unix(), Session: id.String(),
	})
	if err != nil {
		return "", err
	}
	signed := b64url([]byte(tokenHeader)) + "." + b64url(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(t.rand, t.signing, digest[:])
	if err != nil {
		return "", fmt.Errorf("signing token: %w", err)
	}
	sig := make([]byte, 2*coordinate)
	r.FillBytes(sig[:coordinate])
	s.FillBytes(sig[coordinate:])
	return signed + "." + b64url(sig), nil
}

// ParseToken is the session that a token of ours names. Whether it may still
// fetch anything is in the table of grants.
func (t *Tokens) ParseToken(token []byte) (*Session, error) {
	parts := strings.Split(string(token[:min(len(token), maxBearer+1)]), ".")
	if len(token) > maxBearer || len(parts) != 3 || parts[0] != b64url([]byte(tokenHeader)) {
		return nil, ErrExpired
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(sig) != 2*coordinate {
		return nil, ErrExpired
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, s := new(big.Int).SetBytes(sig[:coordinate]), new(big.Int).SetBytes(sig[coordinate:])
	if !ecdsa.Verify(&t.signing.PublicKey, digest[:], r, s) {
		return nil, ErrExpired
	}
	claims, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, ErrExpired
	}
	var c tokenClaims
	if err := kbs.UnmarshalStrict(claims, &c); err != nil || c.Issuer != tokenIssuer {
		return nil, ErrExpired
	}
	id, err := numberEncoding.DecodeString(c.Session)
	if err != nil || len(id) != numberSize {
		return nil, ErrExpired
	}
	return &Session{ID: ID(id), Dialect: Trustee}, nil
}

func b64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
