package masterkey

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// Unwrapper opens a MasterKey that a key service wrapped.
type Unwrapper interface {
	Unwrap(ctx context.Context, ciphertext string) (secret.Bytes, error)
}

// wrappedKey is a MasterKey's file if the key is not in it in clear: exactly
// one of the two.
type wrappedKey struct {
	Version int    `json:"version"`
	Transit string `json:"transit,omitempty"` // wrapped by a transit engine
	Under   []byte `json:"under,omitempty"`   // sealed under the MasterKey before it
}

const nextKeyInfo = "ccrun next master key v1"

// Wrapped is the content of a MasterKey's file that holds it as ciphertext,
// which is no secret. It is k that a key service has wrapped, and is seen to
// unwrap first: a token that may only encrypt would otherwise cost the store at
// the next start.
func Wrapped(ctx context.Context, by Unwrapper, ciphertext string, k secret.Bytes) ([]byte, error) {
	back, err := by.Unwrap(ctx, ciphertext)
	if err != nil {
		return nil, err
	}
	defer back.Wipe()
	if !back.Equal(k) {
		return nil, errors.New("transit unwraps the master key to something else")
	}
	return json.Marshal(wrappedKey{Version: 1, Transit: ciphertext})
}

// SealNext is the content of NextName: next, sealed under the MasterKey in
// use, so that a rotation leaves no key in clear on disk and servers that run
// can follow it.
func SealNext(current, next secret.Bytes, rand io.Reader) ([]byte, error) {
	aead, err := nextKeyAEAD(current)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, gcmNonce)
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("sealing the next master key: %w", err)
	}
	return json.Marshal(wrappedKey{Version: 1, Under: aead.Seal(nonce, nonce, next.Reveal(), []byte(nextKeyInfo))})
}

func nextKeyAEAD(current secret.Bytes) (cipher.AEAD, error) {
	if current.Len() != Size {
		return nil, fmt.Errorf("master key of %d bytes, expected %d", current.Len(), Size)
	}
	k, err := hkdf.Key(sha256.New, current.Reveal(), nil, nextKeyInfo, 32)
	if err != nil {
		return nil, err
	}
	defer clear(k)
	return newGCM(k)
}

// ErrNoTransit says that a key is wrapped by a transit engine, and none is
// configured.
var ErrNoTransit = errors.New("the master key is wrapped by a transit engine, and the configuration has no [transit]: name it with --config")

// errOtherKey: the next MasterKey is sealed under another one than that in use.
var errOtherKey = errors.New("the next master key does not belong to the one in use")

// noKey says what is wrong with a file that holds no MasterKey. A line end that
// was added is not cut off: a key in clear may end with such a byte.
func noKey(b []byte) error {
	err := fmt.Errorf("it holds neither %d bytes nor a wrapped key of version 1, but %d bytes", Size, len(b))
	switch n := len(bytes.TrimRight(b, "\r\n")); {
	case n < len(b) && len(b)-Size <= 2 && len(b) > Size:
		return hint.With(err, "a line end was added to it, as by an editor or echo: the key is its first %d bytes (head -c %[1]d)", Size)
	case n == 2*Size || n == (Size+2)/3*4:
		return hint.With(err, "it looks like hex or base64: the file holds the bytes themselves (`xxd -r -p`, `base64 -d`)")
	}
	return err
}

// unwrap opens b, the content of a MasterKey's file that is not in clear.
func unwrap(ctx context.Context, b []byte, transit Unwrapper, current secret.Bytes) (secret.Bytes, error) {
	var w wrappedKey
	if err := kbs.UnmarshalStrict(b, &w); err != nil || w.Version != 1 || (w.Transit == "") == (len(w.Under) == 0) {
		return secret.Bytes{}, noKey(b)
	}
	if w.Transit != "" {
		if transit == nil {
			return secret.Bytes{}, ErrNoTransit
		}
		return transit.Unwrap(ctx, w.Transit)
	}
	if current.Len() == 0 {
		return secret.Bytes{}, errors.New("it is the next master key, sealed under the one in use: it cannot take that one's place")
	}
	aead, err := nextKeyAEAD(current)
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(w.Under) < gcmNonce {
		return secret.Bytes{}, errOtherKey
	}
	k, err := aead.Open(nil, w.Under[:gcmNonce], w.Under[gcmNonce:], []byte(nextKeyInfo))
	if err != nil {
		return secret.Bytes{}, errOtherKey
	}
	return secret.New(k), nil
}

// TransitCiphertext is what a MasterKey's file holds if a transit engine has
// wrapped the key; empty if the key is there in clear.
func TransitCiphertext(path string) (string, error) {
	b, err := readFile(path, 0o077)
	if err != nil {
		return "", fmt.Errorf("reading master key: %w", err)
	}
	defer clear(b)
	var w wrappedKey
	if len(b) != Size && kbs.UnmarshalStrict(b, &w) != nil {
		return "", fmt.Errorf("reading master key: %s holds neither %d bytes nor a wrapped key", path, Size)
	}
	return w.Transit, nil
}
