package workload

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// reproducibleLabel changes whenever the same plaintext would be laid out in
// another way under the keys derived with it.
const reproducibleLabel = "ccrun reproducible build v1"

// isRandomKey says whether a passphrase has the form of our own DiskKeys.
func isRandomKey(passphrase []byte) bool {
	var raw [32]byte
	defer clear(raw[:])
	if len(passphrase) != hex.EncodedLen(len(raw)) {
		return false
	}
	_, err := hex.Decode(raw[:], passphrase)
	return err == nil
}

// randomness is where the random values of a build come from.
type randomness struct {
	rand   io.Reader
	derive func(purpose string) (io.Reader, error) // instead of rand
}

// derived makes every random value of a reproducible build a function of
// DiskKey and plaintext. The whole plaintext is in the digest: only then can no
// two plaintexts, whatever they come from and whichever version of this program
// laid them out, ever share key and tweak; and no two ciphers share a key.
func derived(diskKey secret.Bytes, cipher string, integrity bool, plaintext [sha256.Size]byte) (randomness, error) {
	prk, err := hkdf.Extract(sha512.New, diskKey.Reveal(), []byte(reproducibleLabel))
	if err != nil {
		return randomness{}, fmt.Errorf("deriving keys: %w", err)
	}
	info := fmt.Sprintf("\x00integrity=%t\x00%s", integrity, plaintext[:])
	if cipher != luks.AESXTS { // which had keys before there was a choice
		info = "\x00cipher=" + cipher + info
	}
	return randomness{derive: func(purpose string) (io.Reader, error) {
		derivedKey, err := hkdf.Expand(sha512.New, prk, purpose+info, 32)
		if err != nil {
			return nil, fmt.Errorf("deriving %s: %w", purpose, err)
		}
		defer clear(derivedKey)
		r, err := expand(derivedKey)
		if err != nil {
			return nil, fmt.Errorf("deriving %s: %w", purpose, err)
		}
		return r, nil
	}}, nil
}

// bytes gives the bytes for one purpose: names keep a public value and a key
// from ever being the same bytes.
func (r randomness) bytes(purpose string) (io.Reader, error) {
	if r.derive != nil {
		return r.derive(purpose)
	}
	return r.rand, nil
}

// expand is an endless stream that follows from a seed of 32 bytes.
func expand(seed []byte) (io.Reader, error) {
	block, err := aes.NewCipher(seed)
	if err != nil {
		return nil, err
	}
	return &cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{}}, nil
}

// keyslot gives the keyslot's random bytes, the same each time it is called: a
// layer that is written again must be the same layer, so that a registry's first
// part of one can be continued with the rest of another. This uses no key twice
// for two things: volume key, plaintext and place are the same as before, and so
// is the ciphertext; the keyslot gets the same salts, and with them the same key
// over the same stripes.
func (r randomness) keyslot() (func() (io.Reader, error), error) {
	if r.derive != nil {
		return func() (io.Reader, error) { return r.derive("keyslot") }, nil
	}
	var seed [32]byte
	if _, err := io.ReadFull(r.rand, seed[:]); err != nil {
		return nil, fmt.Errorf("drawing keyslot: %w", err)
	}
	return func() (io.Reader, error) { return expand(seed[:]) }, nil
}

// zeros is an endless run of zero bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
