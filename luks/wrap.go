package luks

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
)

// wrapLabel separates wrapping from every other use of the wrapping key.
const wrapLabel = "ccrun volume key wrap v1"

const (
	wrapSaltBytes = 32
	wrapTagBytes  = 16
)

// ErrWrapped says that a wrapped key does not open: it was damaged, or wrapped
// under another key or context.
var ErrWrapped = errors.New("wrapped volume key does not verify")

// WrappedBytes is the length of what Wrap returns for a key of g.
func WrappedBytes(g Geometry) int { return wrapSaltBytes + g.VolumeKeyBytes + wrapTagBytes }

// Wrap encrypts inner under a key that is derived from k and a salt drawn from
// rand: the salt, then AES-256-GCM. Only the same context opens it again. The
// nonce is derived, too, so that no number of wraps under one k is too many.
func (k *VolumeKey) Wrap(rand io.Reader, context []byte, inner *VolumeKey) ([]byte, error) {
	out := make([]byte, wrapSaltBytes, wrapSaltBytes+len(inner.b)+wrapTagBytes)
	if _, err := io.ReadFull(rand, out); err != nil {
		return nil, fmt.Errorf("drawing the salt of a wrapped key: %w", err)
	}
	aead, nonce, err := k.wrapper(out)
	if err != nil {
		return nil, err
	}
	if len(inner.b) == 0 {
		return nil, errors.New("wrapping an empty volume key")
	}
	return aead.Seal(out, nonce, inner.b, context), nil
}

// Unwrap opens what Wrap made of a key of g: ErrWrapped if it cannot be opened
// so.
func (k *VolumeKey) Unwrap(context, wrapped []byte, g Geometry) (*VolumeKey, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if len(wrapped) != WrappedBytes(g) {
		return nil, fmt.Errorf("%d bytes, expected %d: %w", len(wrapped), WrappedBytes(g), ErrWrapped)
	}
	aead, nonce, err := k.wrapper(wrapped[:wrapSaltBytes])
	if err != nil {
		return nil, err
	}
	b, err := aead.Open(nil, nonce, wrapped[wrapSaltBytes:], context)
	if err != nil {
		return nil, ErrWrapped
	}
	return &VolumeKey{b: b}, nil
}

func (k *VolumeKey) wrapper(salt []byte) (cipher.AEAD, []byte, error) {
	if k == nil || len(k.b) == 0 {
		return nil, nil, errors.New("wrapping without a volume key")
	}
	const keyBytes, nonceBytes = 32, 12
	b, err := hkdf.Key(sha512.New384, k.b, salt, wrapLabel, keyBytes+nonceBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("deriving a wrapping key: %w", err)
	}
	defer clear(b[:keyBytes])
	block, err := aes.NewCipher(b[:keyBytes])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, b[keyBytes:], err
}
