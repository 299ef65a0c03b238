package luks

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/ccrun/ccrun/secret"
)

// ReplaceKeyslots returns new bytes for the disk's first DataOffsetBytes: the
// same volume key under one keyslot, passphrase's. Every older keyslot is
// gone. The data need not be touched.
func (h *Header) ReplaceKeyslots(vk *VolumeKey, passphrase secret.Bytes, kdf KDF, rand io.Reader) ([]byte, error) {
	g, err := h.Geometry()
	if err != nil {
		return nil, err
	}
	if err := vk.check(&g); err != nil {
		return nil, err
	}
	d := h.meta.Digests["0"]
	if ok, err := d.matches(vk.b); err != nil || !ok {
		return nil, errors.Join(errors.New("the volume key is not this disk's"), err)
	}
	bin := h.bin
	bin.sequence++
	return newHeader(bin, int64(h.meta.Config.KeyslotsSize), &g, vk, passphrase, kdf, rand)
}

// newHeader renders everything before the segment.
func newHeader(bin binaryHeader, keyslotsBytes int64, g *Geometry, vk *VolumeKey, passphrase secret.Bytes, kdf KDF, rand io.Reader) ([]byte, error) {
	if passphrase.Len() == 0 {
		return nil, errors.New("empty disk passphrase")
	}
	if err := kdf.Validate(); err != nil {
		return nil, err
	}
	salts := make([]byte, 2*headerSaltBytes+2*saltBytes)
	if _, err := io.ReadFull(rand, salts); err != nil {
		return nil, fmt.Errorf("drawing header salts: %w", err)
	}
	salt1, salt2 := salts[:headerSaltBytes], salts[headerSaltBytes:2*headerSaltBytes]
	slotSalt, digestSalt := salts[2*headerSaltBytes:][:saltBytes], salts[2*headerSaltBytes:][saltBytes:]
	d := newDigest(vk, digestSalt)
	m := newMetadata(bin.headerBytes, keyslotsBytes, g, d, newSlotKDF(kdf, slotSalt))
	return renderHeader(bin, m, g, salt1, salt2, func(out []byte, k keyslot) error {
		return sealSlot(out, k, vk, passphrase, rand)
	})
}

// renderHeader is both copies of m and the keyslot area that seal fills.
func renderHeader(bin binaryHeader, m *metadata, g *Geometry, salt1, salt2 []byte, seal func([]byte, keyslot) error) ([]byte, error) {
	if err := m.validate(bin.headerBytes, g.TotalBytes()); err != nil {
		return nil, fmt.Errorf("laying out LUKS2 header: %w", err)
	}
	out := make([]byte, g.DataOffsetBytes)
	k := m.Keyslots["0"]
	if err := seal(out[k.Area.Offset:k.Area.Offset+k.Area.Size], k); err != nil {
		return nil, err
	}
	js, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding LUKS2 metadata: %w", err)
	}
	for i, salt := range [][]byte{salt1, salt2} {
		b, err := bin.encode(js, salt, i == 1)
		if err != nil {
			return nil, err
		}
		copy(out[int64(i)*bin.headerBytes:], b)
	}
	return out, nil
}

// newDigest is how the metadata recognizes the volume key.
func newDigest(vk *VolumeKey, salt []byte) digest {
	d := digest{Type: "pbkdf2", Keyslots: []string{"0"}, Segments: []string{"0"}, Hash: "sha256", Iterations: minPBKDF2Iterations, Salt: salt}
	d.Digest = pbkdf2Key(sha256.New, vk.b, salt, d.Iterations, sha256.Size)
	return d
}

func newMetadata(headerBytes, keyslotsBytes int64, g *Geometry, d digest, kdf slotKDF) *metadata {
	s := segment{
		Type:       "crypt",
		Offset:     decimal(g.DataOffsetBytes),
		Size:       strconv.FormatInt(g.PlainBytes, 10),
		Encryption: g.Cipher,
		SectorSize: g.SectorBytes,
	}
	if g.Integrity != nil { // the size is then the superblock's business
		s.Size = "dynamic"
		s.Integrity = &segmentIntegrity{Type: g.Integrity.Algorithm, JournalEncryption: "none", JournalIntegrity: "none"}
	}
	k := keyslot{
		Type:     "luks2",
		KeyBytes: g.VolumeKeyBytes,
		AF:       af{Type: "luks1", Stripes: afStripes, Hash: "sha256"},
		Area: area{
			Type: "raw", Encryption: cipherAESXTS, KeyBytes: 64,
			Offset: decimal(2 * headerBytes), Size: decimal(slotAreaBytes(g.VolumeKeyBytes)),
		},
		KDF: kdf,
	}
	return &metadata{
		Keyslots: map[string]keyslot{"0": k},
		Tokens:   map[string]json.RawMessage{},
		Segments: map[string]segment{"0": s},
		Digests:  map[string]digest{"0": d},
		Config:   config{JSONSize: decimal(headerBytes - binaryBytes), KeyslotsSize: decimal(keyslotsBytes)},
	}
}

// sealSlot fills a keyslot area with the split and encrypted volume key.
func sealSlot(out []byte, k keyslot, vk *VolumeKey, passphrase secret.Bytes, rand io.Reader) error {
	newHash, err := hashByName(k.AF.Hash)
	if err != nil {
		return err
	}
	stripes, err := afSplit(vk.b, newHash, rand)
	if err != nil {
		return err
	}
	copy(out, stripes)
	clear(stripes)
	return cryptArea(out, k, passphrase.Reveal(), (*xts).encrypt)
}
