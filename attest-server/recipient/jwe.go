package recipient

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// JWE (RFC 7516) in the flattened JSON form that CoCo's client reads. It does
// not authenticate the protected header as sent but as it would have written
// it: alg, enc, then the rest in alphabetical order. The known libraries write
// another order, so the header is written here.

const (
	algECDH = "ECDH-ES+A256KW"
	algRSA  = "RSA-OAEP-256"
)

// jwe is RFC 7516, section 7.2.2.
type jwe struct {
	Protected    string `json:"protected"`
	EncryptedKey string `json:"encrypted_key"`
	IV           string `json:"iv"`
	Ciphertext   string `json:"ciphertext"`
	Tag          string `json:"tag"`
}

func b64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// EC takes JWEs of algECDH.
type EC struct {
	Public *ecdh.PublicKey
	Curve  string // as in JOSE
}

// Seal implements Recipient.
func (e EC) Seal(rand io.Reader, item Item) ([]byte, error) {
	ephemeral, err := e.Public.Curve().GenerateKey(rand)
	if err != nil {
		return nil, err
	}
	z, err := ephemeral.ECDH(e.Public)
	if err != nil {
		return nil, err
	}
	defer clear(z)
	point := ephemeral.PublicKey().Bytes()[1:] // x ‖ y
	x, y := point[:len(point)/2], point[len(point)/2:]
	header := fmt.Sprintf(`{"alg":"%s","enc":"A256GCM","epk":{"crv":"%s","kty":"EC","x":"%s","y":"%s"}}`, algECDH, e.Curve, b64url(x), b64url(y))
	return sealJWE(rand, header, item.Plain, func(cek []byte) ([]byte, error) { return wrapKey(concatKDF(z), cek) })
}

// RSA takes JWEs of algRSA.
type RSA struct{ Public *rsa.PublicKey }

// Seal implements Recipient.
func (e RSA) Seal(rand io.Reader, item Item) ([]byte, error) {
	return sealJWE(rand, `{"alg":"`+algRSA+`","enc":"A256GCM"}`, item.Plain, func(cek []byte) ([]byte, error) {
		return rsa.EncryptOAEP(sha256.New(), rand, e.Public, cek, nil)
	})
}

func sealJWE(rand io.Reader, header string, plain []byte, wrap func([]byte) ([]byte, error)) ([]byte, error) {
	random := make([]byte, 32+12)
	if _, err := io.ReadFull(rand, random); err != nil {
		return nil, fmt.Errorf("making a content key: %w", err)
	}
	cek, iv := random[:32], random[32:]
	defer clear(cek)
	wrapped, err := wrap(cek)
	if err != nil {
		return nil, fmt.Errorf("wrapping the content key: %w", err)
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	protected := b64url([]byte(header))
	sealed := gcm.Seal(nil, iv, plain, []byte(protected))
	n := len(plain)
	return json.Marshal(jwe{protected, b64url(wrapped), b64url(iv), b64url(sealed[:n]), b64url(sealed[n:])})
}

// concatKDF is the key encryption key of algECDH from the shared secret
// (RFC 7518, section 4.6.2, without party information).
func concatKDF(z []byte) []byte {
	h := sha256.New()
	h.Write([]byte{0, 0, 0, 1})
	h.Write(z)
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(algECDH))))
	h.Write([]byte(algECDH))
	h.Write(make([]byte, 8)) // PartyUInfo and PartyVInfo are empty
	h.Write(binary.BigEndian.AppendUint32(nil, 256))
	return h.Sum(nil)
}

// wrapKey is AES key wrap (RFC 3394, section 2.2.1).
func wrapKey(kek, key []byte) ([]byte, error) {
	if len(key) < 16 || len(key)%8 != 0 {
		return nil, errors.New("wrapping a key that is not of whole 64-bit blocks")
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 8+len(key))
	copy(out[8:], key)
	a := [16]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}
	n := len(key) / 8
	for t := 1; t <= 6*n; t++ {
		r := out[8*((t-1)%n+1):][:8]
		copy(a[8:], r)
		block.Encrypt(a[:], a[:])
		copy(r, a[8:])
		subtle.XORBytes(a[:8], a[:8], binary.BigEndian.AppendUint64(nil, uint64(t)))
	}
	copy(out, a[:8])
	return out, nil
}
