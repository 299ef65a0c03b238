package recipient

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// JWKsAccepted says, for people, which keys ParseJWK takes.
const JWKsAccepted = "EC P-256 or P-521 with ECDH-ES+A256KW, or RSA-OAEP-256"

// JWK is a tee-pubkey: a JWK with these members and no others, which is how the
// client hashed it.
type JWK struct {
	KTY string `json:"kty"`
	CRV string `json:"crv,omitempty"`
	Alg string `json:"alg"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
}

// ParseJWK drops members that the key's type does not have.
func ParseJWK(raw json.RawMessage) (JWK, Recipient, error) {
	var k JWK
	if err := json.Unmarshal(raw, &k); err != nil {
		return JWK{}, nil, err
	}
	switch {
	case k.KTY == "EC" && k.Alg == algECDH:
		k.N, k.E = "", ""
		r, err := k.ec()
		return k, r, err
	case k.KTY == "RSA" && k.Alg == algRSA:
		k.CRV, k.X, k.Y = "", "", ""
		r, err := k.rsa()
		return k, r, err
	}
	return JWK{}, nil, fmt.Errorf("kty %q with alg %q", k.KTY, k.Alg)
}

func (k JWK) ec() (Recipient, error) {
	curve, size := ecdh.P256(), 32
	switch k.CRV {
	case "P-256":
	case "P-521":
		curve, size = ecdh.P521(), 66
	default:
		return nil, fmt.Errorf("curve %q", k.CRV)
	}
	x, err := base64.RawURLEncoding.Strict().DecodeString(k.X)
	y, err2 := base64.RawURLEncoding.Strict().DecodeString(k.Y)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if len(x) != size || len(y) != size {
		return nil, fmt.Errorf("coordinates of %d and %d bytes, expected %d", len(x), len(y), size)
	}
	public, err := curve.NewPublicKey(bytes.Join([][]byte{{4}, x, y}, nil))
	if err != nil {
		return nil, err
	}
	return EC{Public: public, Curve: k.CRV}, nil
}

func (k JWK) rsa() (Recipient, error) {
	n, err := base64.RawURLEncoding.Strict().DecodeString(k.N)
	e, err2 := base64.RawURLEncoding.Strict().DecodeString(k.E)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	public, err := ParseRSA(n, e)
	if err != nil {
		return nil, err
	}
	return RSA{public}, nil
}

// ParseRSA takes keys of 2048 to 4096 bits with the usual exponent: others
// are weak, or slow to encrypt to.
func ParseRSA(n, e []byte) (*rsa.PublicKey, error) {
	if len(n) < 256 || len(n) > 512 || !bytes.Equal(e, []byte{1, 0, 1}) {
		return nil, fmt.Errorf("RSA key of %d bytes and exponent %x, expected 256 to 512 bytes and 010001", len(n), e[:min(len(e), 8)])
	}
	m := new(big.Int).SetBytes(n)
	if m.BitLen() != 8*len(n) || m.Bit(0) == 0 {
		return nil, errors.New("RSA modulus that is even or has leading zeros")
	}
	return &rsa.PublicKey{N: m, E: 65537}, nil
}
