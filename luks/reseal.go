package luks

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// SealedSlot is a disk's one keyslot as ciphertext, and how to recognize the
// volume key in it: what someone who has the passphrase needs to seal the same
// volume key under another, without the rest of the disk.
type SealedSlot struct {
	KDF              KDF
	Salt             []byte
	Area             []byte // AES-XTS-plain64, 512-bit key, 512-byte sectors
	VolumeKeyBytes   int    // split over 4000 stripes, SHA-256
	DigestSalt       []byte // PBKDF2-SHA256 of the volume key
	DigestIterations int
	Digest           []byte
}

// SealedSlot is the disk's keyslot. Disks with several, or with other
// algorithms than this package writes, are refused.
func (h *Header) SealedSlot() (*SealedSlot, error) {
	names := h.meta.slotNames()
	if len(names) != 1 {
		return nil, fmt.Errorf("disk with %d keyslots, expected one", len(names))
	}
	k, d := h.meta.Keyslots[names[0]], h.meta.Digests["0"]
	switch {
	case k.AF.Hash != "sha256" || d.Hash != "sha256":
		return nil, fmt.Errorf("keyslot with hashes %q and %q, expected sha256", k.AF.Hash, d.Hash)
	case k.Area.KeyBytes != 64 || k.Area.Encryption != cipherAESXTS:
		return nil, fmt.Errorf("keyslot encrypted by %s with %d bytes of key, expected %s with 64", k.Area.Encryption, k.Area.KeyBytes, cipherAESXTS)
	case int64(k.Area.Size) != slotAreaBytes(k.KeyBytes):
		return nil, fmt.Errorf("keyslot area of %d bytes, expected %d", k.Area.Size, slotAreaBytes(k.KeyBytes))
	}
	return &SealedSlot{
		KDF: k.KDF.kdf(), Salt: slices.Clone([]byte(k.KDF.Salt)), Area: slices.Clone(h.areas[names[0]]), VolumeKeyBytes: k.KeyBytes,
		DigestSalt: slices.Clone([]byte(d.Salt)), DigestIterations: d.Iterations, Digest: slices.Clone([]byte(d.Digest)),
	}, nil
}

// ReplaceSlot returns new bytes for the disk's first DataOffsetBytes, with the
// keyslot that somebody else sealed (area, under kdf and salt) in place of the
// old one. Data, geometry and volume key stay. Only somebody with its passphrase
// can tell whether the area holds the volume key.
func (h *Header) ReplaceSlot(kdf KDF, salt, area []byte, rand io.Reader) ([]byte, error) {
	g, err := h.Geometry()
	if err != nil {
		return nil, err
	}
	if _, err := h.SealedSlot(); err != nil {
		return nil, err
	}
	if err := kdf.Validate(); err != nil {
		return nil, err
	}
	if len(salt) != saltBytes || int64(len(area)) != slotAreaBytes(g.VolumeKeyBytes) {
		return nil, fmt.Errorf("sealed keyslot of %d bytes with a salt of %d, expected %d and %d", len(area), len(salt), slotAreaBytes(g.VolumeKeyBytes), saltBytes)
	}
	var salts [2 * headerSaltBytes]byte
	if _, err := io.ReadFull(rand, salts[:]); err != nil {
		return nil, fmt.Errorf("drawing header salts: %w", err)
	}
	bin := h.bin
	bin.sequence++
	d := h.meta.Digests["0"]
	d.Keyslots, d.Segments = []string{"0"}, []string{"0"}
	m := newMetadata(bin.headerBytes, int64(h.meta.Config.KeyslotsSize), &g, d, newSlotKDF(kdf, salt))
	return renderHeader(bin, m, &g, salts[:headerSaltBytes], salts[headerSaltBytes:], func(out []byte, _ keyslot) error {
		if copy(out, area) != len(out) {
			return errors.New("sealed keyslot is shorter than its area")
		}
		return nil
	})
}
