package luks

import (
	"crypto/hmac"
	"crypto/sha512"
	"fmt"
	"io"
	"log/slog"

	"github.com/ccrun/ccrun/secret"
)

// volumeKeyDigestLabel separates Digest from every other use of the key.
const volumeKeyDigestLabel = "ccrun volume key v1"

// VolumeKey is the key a disk's data is encrypted with: the cipher key, then
// the integrity key if there is one, as cryptsetup and dm-crypt lay them out.
// The zero value is refused everywhere.
type VolumeKey struct{ b []byte }

// NewVolumeKey draws a key for g from rand.
func NewVolumeKey(rand io.Reader, g Geometry) (*VolumeKey, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	b := make([]byte, g.VolumeKeyBytes)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("drawing volume key: %w", err)
	}
	return &VolumeKey{b: b}, nil
}

// Digest is HMAC-SHA384(key, "ccrun volume key v1"). It is published in the
// measured identity; only the right key satisfies it.
func (k *VolumeKey) Digest() [48]byte {
	m := hmac.New(sha512.New384, k.b)
	m.Write([]byte(volumeKeyDigestLabel))
	return [48]byte(m.Sum(nil))
}

// subkeyLabel begins what subkeys are derived from, so that none is ever the
// Digest, which is public.
const subkeyLabel = "ccrun volume subkey v1\x00"

// Subkey is HMAC-SHA384(key, "ccrun volume subkey v1", 0, purpose): 48 bytes
// for one purpose, from which neither the key nor another subkey follows. The
// subkey of a wiped key is empty. The caller wipes it.
func (k *VolumeKey) Subkey(purpose string) secret.Bytes {
	if k == nil || len(k.b) == 0 {
		return secret.Bytes{}
	}
	m := hmac.New(sha512.New384, k.b)
	m.Write([]byte(subkeyLabel))
	m.Write([]byte(purpose))
	return secret.New(m.Sum(nil))
}

// Wipe overwrites the key; it is refused from then on.
func (k *VolumeKey) Wipe() {
	clear(k.b)
	k.b = nil
}

// check makes sure the key has the length g asks for.
func (k *VolumeKey) check(g *Geometry) error {
	if k == nil || len(k.b) != g.VolumeKeyBytes {
		n := 0
		if k != nil {
			n = len(k.b)
		}
		return fmt.Errorf("volume key of %d bytes, expected %d", n, g.VolumeKeyBytes)
	}
	return nil
}

func (k *VolumeKey) cipherKey() []byte { return k.b[:cipherKeyBytes] }
func (k *VolumeKey) macKey() []byte    { return k.b[cipherKeyBytes:] }

// String implements fmt.Stringer without the key.
func (k *VolumeKey) String() string { return "[redacted]" }

// Format implements fmt.Formatter without the key, for every verb.
func (k VolumeKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

// LogValue implements slog.LogValuer without the key.
func (k *VolumeKey) LogValue() slog.Value { return slog.StringValue("[redacted]") }
