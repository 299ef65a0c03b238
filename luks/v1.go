package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/ccrun/ccrun/secret"
)

// LUKS1, for the disks of `buildah mkcw` and of libkrunfw before version 5
// (LUKS1 On-Disk Format Specification 1.2.3). It has no integrity and its
// cipher and geometry come from the host-controlled header: nothing that our
// guest agent opens is in this format.

const (
	v1HeaderBytes  = 592
	v1Slots        = 8
	v1SlotStart    = 208
	v1SlotBytes    = 48
	v1DigestBytes  = 20
	v1SlotEnabled  = 0x00AC71F3
	v1SlotDisabled = 0x0000DEAD
	v1AlignBytes   = 4096
	v1Magic        = "LUKS\xba\xbe\x00\x01"
)

// ErrNotLUKS1 says that a disk does not start with a LUKS1 header.
var ErrNotLUKS1 = errors.New("not a LUKS1 disk")

// V1Header is a private, checked copy of a LUKS1 header and the keyslots in
// use.
type V1Header struct {
	raw       v1Raw
	hashName  string
	uuid      string
	areas     map[int][]byte
	diskBytes int64
}

// v1Raw is the header as it stands on the disk, big endian.
type v1Raw struct {
	Magic         [8]byte // with the version
	CipherName    [32]byte
	CipherMode    [32]byte
	HashSpec      [32]byte
	PayloadOffset uint32 // in sectors, as all offsets
	KeyBytes      uint32
	Digest        [v1DigestBytes]byte
	DigestSalt    [saltBytes]byte
	DigestIter    uint32
	UUID          [40]byte
	Slots         [v1Slots]v1RawSlot
}

type v1RawSlot struct {
	Active     uint32
	Iterations uint32
	Salt       [saltBytes]byte
	Offset     uint32
	Stripes    uint32
}

// ReadV1Header reads and checks the header of a disk of size bytes. Like
// ReadHeader it accepts one cipher only.
func ReadV1Header(r io.ReaderAt, size int64) (*V1Header, error) {
	b := make([]byte, v1HeaderBytes)
	if size < v1HeaderBytes {
		return nil, fmt.Errorf("disk of %d bytes: %w", size, ErrNotLUKS1)
	}
	if err := readAt(r, b, 0); err != nil {
		return nil, fmt.Errorf("reading LUKS1 header: %w", err)
	}
	if string(b[:len(v1Magic)]) != v1Magic {
		return nil, ErrNotLUKS1
	}
	h := &V1Header{areas: map[int][]byte{}, diskBytes: size}
	if err := binary.Read(bytes.NewReader(b), binary.BigEndian, &h.raw); err != nil {
		return nil, fmt.Errorf("reading LUKS1 header: %w", err)
	}
	if err := h.validate(); err != nil {
		return nil, fmt.Errorf("LUKS1 header: %w", err)
	}
	for i, s := range h.raw.Slots {
		if s.Active != v1SlotEnabled {
			continue
		}
		area := make([]byte, cipherKeyBytes*afStripes)
		if err := readAt(r, area, int64(s.Offset)*dmSectorBytes); err != nil {
			return nil, fmt.Errorf("reading keyslot %d: %w", i, err)
		}
		h.areas[i] = area
	}
	return h, nil
}

// paddedString is a zero-padded field; bytes after the first zero must be zero too.
func paddedString(b []byte) (string, error) {
	s, rest, _ := bytes.Cut(b, []byte{0})
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return "", fmt.Errorf("text %.20q is not padded with zeros", s)
	}
	return string(s), nil
}

func (h *V1Header) validate() error {
	r := &h.raw
	var text [4]string
	for i, f := range [][]byte{r.CipherName[:], r.CipherMode[:], r.HashSpec[:], r.UUID[:]} {
		var err error
		if text[i], err = paddedString(f); err != nil {
			return err
		}
	}
	h.hashName, h.uuid = text[2], text[3]
	payload := int64(r.PayloadOffset) * dmSectorBytes
	switch _, err := hashByName(h.hashName); {
	case text[0]+"-"+text[1] != cipherAESXTS:
		return fmt.Errorf("cipher %.20q in mode %.20q, expected %s", text[0], text[1], cipherAESXTS)
	case err != nil:
		return err
	case r.KeyBytes != cipherKeyBytes:
		return fmt.Errorf("key of %d bytes, expected %d", r.KeyBytes, cipherKeyBytes)
	case payload < minDataOffsetBytes || payload > maxDataOffsetBytes || payload >= h.diskBytes || payload%v1AlignBytes != 0:
		return fmt.Errorf("payload at %d, expected a multiple of %d inside the disk and up to %d", payload, v1AlignBytes, maxDataOffsetBytes)
	case r.DigestIter < 1000 || r.DigestIter > maxPBKDF2Iterations:
		return fmt.Errorf("%d digest iterations, expected 1000 to %d", r.DigestIter, maxPBKDF2Iterations)
	case !validUUID(h.uuid, anyHex):
		return fmt.Errorf("disk UUID %.40q, expected the 8-4-4-4-12 form", h.uuid)
	}
	return h.validateSlots(payload)
}

func (h *V1Header) validateSlots(payload int64) error {
	type area struct{ start, end int64 }
	var used []area
	for i, s := range h.raw.Slots {
		if s.Active == v1SlotDisabled {
			continue
		}
		a := area{start: int64(s.Offset) * dmSectorBytes}
		a.end = a.start + cipherKeyBytes*afStripes
		switch {
		case s.Active != v1SlotEnabled:
			return fmt.Errorf("keyslot %d is neither enabled nor disabled (%#x)", i, s.Active)
		case s.Stripes != afStripes:
			return fmt.Errorf("keyslot %d has %d stripes, expected %d", i, s.Stripes, afStripes)
		case s.Iterations < minPBKDF2Iterations || s.Iterations > maxPBKDF2Iterations:
			return fmt.Errorf("keyslot %d has %d iterations, expected %d to %d", i, s.Iterations, minPBKDF2Iterations, maxPBKDF2Iterations)
		case a.start < v1HeaderBytes || a.end > payload:
			return fmt.Errorf("keyslot %d is at %d, expected between header and payload (%d)", i, a.start, payload)
		case slices.ContainsFunc(used, func(b area) bool { return a.start < b.end && b.start < a.end }):
			return fmt.Errorf("keyslot %d overlaps another", i)
		}
		used = append(used, a)
	}
	if len(used) == 0 {
		return errors.New("no keyslot in use")
	}
	return nil
}

// Geometry is what the header claims. plainEnd is where the content ends in
// the disk, before a footer; a rest of less than 4096 bytes is not content.
func (h *V1Header) Geometry(plainEnd int64) (Geometry, error) {
	offset := int64(h.raw.PayloadOffset) * dmSectorBytes
	if plainEnd > h.diskBytes {
		return Geometry{}, fmt.Errorf("content up to %d of a disk of %d bytes", plainEnd, h.diskBytes)
	}
	g := Geometry{
		UUID: string(bytes.ToLower([]byte(h.uuid))), Cipher: cipherAESXTS, VolumeKeyBytes: cipherKeyBytes, SectorBytes: dmSectorBytes,
		DataOffsetBytes: offset, PlainBytes: (plainEnd - offset) / alignBytes * alignBytes,
	}
	return g, g.Validate()
}

// KDFs are the functions of the keyslots in use, in order, by slot number.
func (h *V1Header) KDFs() map[int]KDF {
	m := map[int]KDF{}
	for i := range h.areas {
		m[i] = KDF{Type: "pbkdf2", Hash: h.hashName, Iterations: int(h.raw.Slots[i].Iterations)}
	}
	return m
}

// Unlock tries the keyslots in order. It returns ErrWrongPassphrase if none
// opens.
func (h *V1Header) Unlock(passphrase secret.Bytes) (*VolumeKey, error) {
	if passphrase.Len() == 0 {
		return nil, fmt.Errorf("empty passphrase: %w", ErrWrongPassphrase)
	}
	newHash, err := hashByName(h.hashName)
	if err != nil {
		return nil, err
	}
	for i := range v1Slots {
		if h.areas[i] == nil {
			continue
		}
		key, err := h.openSlot(i, passphrase.Reveal(), newHash)
		if err != nil {
			return nil, fmt.Errorf("opening keyslot %d: %w", i, err)
		}
		sum := pbkdf2Key(newHash, key, h.raw.DigestSalt[:], int(h.raw.DigestIter), v1DigestBytes)
		if subtle.ConstantTimeCompare(sum, h.raw.Digest[:]) == 1 {
			return &VolumeKey{b: key}, nil
		}
		clear(key)
	}
	return nil, ErrWrongPassphrase
}

func (h *V1Header) openSlot(i int, passphrase []byte, newHash func() hash.Hash) ([]byte, error) {
	stripes := slices.Clone(h.areas[i])
	defer clear(stripes)
	s := h.raw.Slots[i]
	if err := v1CryptArea(stripes, passphrase, s.Salt[:], h.hashName, int(s.Iterations), (*xts).decrypt); err != nil {
		return nil, err
	}
	return afMerge(stripes, cipherKeyBytes, newHash), nil
}

func v1CryptArea(b, passphrase, salt []byte, hashName string, iterations int, do func(*xts, []byte, uint64, *xtsScratch)) error {
	return cryptArea(b, keyslot{
		KDF:  newSlotKDF(KDF{Type: "pbkdf2", Hash: hashName, Iterations: iterations}, salt),
		Area: area{KeyBytes: cipherKeyBytes},
	}, passphrase, do)
}

// V1Geometry lays out a disk as `buildah mkcw` does: room for eight keyslots,
// 512-byte sectors, no integrity.
func V1Geometry(uuid string, plainBytes int64) (Geometry, error) {
	g := Geometry{
		UUID: uuid, Cipher: cipherAESXTS, VolumeKeyBytes: cipherKeyBytes, SectorBytes: dmSectorBytes,
		DataOffsetBytes: v1AlignBytes + v1Slots*v1SlotAreaBytes, PlainBytes: plainBytes,
	}
	return g, g.Validate()
}

const v1SlotAreaBytes = (cipherKeyBytes*afStripes + v1AlignBytes - 1) / v1AlignBytes * v1AlignBytes

// NewV1Writer is NewWriter for a LUKS1 disk: g must be of the kind that
// V1Geometry makes, o.KDF PBKDF2 with SHA-256.
func NewV1Writer(w io.Writer, g Geometry, vk *VolumeKey, passphrase secret.Bytes, o WriterOptions) (*Writer, error) {
	if want, err := V1Geometry(g.UUID, g.PlainBytes); err != nil || g != want {
		return nil, errors.Join(errors.New("geometry is not that of a LUKS1 disk"), err)
	}
	if err := o.KDF.Validate(); err != nil {
		return nil, err
	}
	if o.KDF.Type != "pbkdf2" || o.KDF.Hash != "sha256" {
		return nil, fmt.Errorf("keyslot with %s and %q, expected pbkdf2 and sha256, the one LUKS1 has", o.KDF.Type, o.KDF.Hash)
	}
	return newWriter(w, g, vk, o, func() error {
		b, err := newV1Header(&g, vk, passphrase, o)
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("writing LUKS1 header: %w", err)
		}
		return nil
	})
}

func newV1Header(g *Geometry, vk *VolumeKey, passphrase secret.Bytes, o WriterOptions) ([]byte, error) {
	if passphrase.Len() == 0 {
		return nil, errors.New("disk without a passphrase")
	}
	r := v1Raw{Magic: [8]byte([]byte(v1Magic)), PayloadOffset: uint32(g.DataOffsetBytes / dmSectorBytes), KeyBytes: cipherKeyBytes, DigestIter: minPBKDF2Iterations}
	copy(r.CipherName[:], "aes")
	copy(r.CipherMode[:], "xts-plain64")
	copy(r.HashSpec[:], "sha256")
	copy(r.UUID[:], g.UUID)
	if _, err := io.ReadFull(o.Rand, r.DigestSalt[:]); err != nil {
		return nil, fmt.Errorf("drawing salts: %w", err)
	}
	sum := pbkdf2Key(sha256.New, vk.b, r.DigestSalt[:], int(r.DigestIter), v1DigestBytes)
	r.Digest = [v1DigestBytes]byte(sum)
	for i := range r.Slots {
		s := &r.Slots[i]
		s.Active, s.Stripes = v1SlotDisabled, afStripes
		s.Offset = uint32((v1AlignBytes + i*v1SlotAreaBytes) / dmSectorBytes)
	}
	out := make([]byte, g.DataOffsetBytes)
	if err := sealV1Slot(&r.Slots[0], out[v1AlignBytes:], vk, passphrase, o); err != nil {
		return nil, err
	}
	if _, err := binary.Encode(out, binary.BigEndian, &r); err != nil {
		return nil, err
	}
	return out, nil
}

func sealV1Slot(s *v1RawSlot, to []byte, vk *VolumeKey, passphrase secret.Bytes, o WriterOptions) error {
	s.Active, s.Iterations = v1SlotEnabled, uint32(o.KDF.Iterations)
	if _, err := io.ReadFull(o.Rand, s.Salt[:]); err != nil {
		return fmt.Errorf("drawing salts: %w", err)
	}
	stripes, err := afSplit(vk.b, sha256.New, o.Rand)
	if err != nil {
		return err
	}
	defer clear(stripes)
	if err := v1CryptArea(stripes, passphrase.Reveal(), s.Salt[:], "sha256", o.KDF.Iterations, (*xts).encrypt); err != nil {
		return err
	}
	copy(to, stripes)
	return nil
}
