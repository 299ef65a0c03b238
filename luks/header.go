package luks

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ccrun/ccrun/secret"
)

// ErrWrongPassphrase says that no keyslot opens with the passphrase.
var ErrWrongPassphrase = errors.New("no LUKS keyslot opens with this passphrase")

// Header is a private, checked copy of a disk's LUKS2 header, keyslot areas
// included: whatever the owner of the disk does to it later has no effect.
type Header struct {
	bin        binaryHeader
	meta       metadata
	areas      map[string][]byte
	superblock []byte // with integrity
	diskBytes  int64
}

// ReadHeader reads and checks the header of a disk of size bytes. It uses the
// secondary copy if the primary is damaged, and refuses whatever this package
// would not write or cryptsetup would not write by default.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	return readHeader(r, size, func(*metadata, int64) error { return nil })
}

// readHeader reads nothing that check refuses: it gets the metadata and the
// length of one copy of the header.
func readHeader(r io.ReaderAt, size int64, check func(*metadata, int64) error) (*Header, error) {
	bin, m, err := readMetadata(r, 0, size, check)
	if err != nil {
		bin2, m2, err2 := readSecondary(r, size, check)
		if err2 != nil {
			return nil, fmt.Errorf("reading LUKS2 header: %w", err)
		}
		bin, m = bin2, m2
	}
	h := &Header{bin: *bin, meta: *m, areas: map[string][]byte{}, diskBytes: size}
	for name, k := range m.Keyslots {
		b := make([]byte, k.Area.Size)
		if err := readAt(r, b, int64(k.Area.Offset)); err != nil {
			return nil, fmt.Errorf("reading keyslot %s: %w", name, err)
		}
		h.areas[name] = b
	}
	if m.Segments["0"].Integrity != nil {
		h.superblock = make([]byte, superblockUsedBytes)
		if err := readAt(r, h.superblock, int64(m.Segments["0"].Offset)); err != nil {
			return nil, fmt.Errorf("reading dm-integrity superblock: %w", err)
		}
	}
	return h, nil
}

func readMetadata(r io.ReaderAt, off, size int64, check func(*metadata, int64) error) (*binaryHeader, *metadata, error) {
	bin, js, err := readCopy(r, off, size)
	if err != nil {
		return nil, nil, err
	}
	m, err := decodeMetadata(js)
	if err != nil {
		return nil, nil, err
	}
	if err := m.validate(bin.headerBytes, size); err != nil {
		return nil, nil, err
	}
	return bin, m, check(m, bin.headerBytes)
}

// readSecondary looks for the second copy wherever it may be (section 2.3).
func readSecondary(r io.ReaderAt, size int64, check func(*metadata, int64) error) (*binaryHeader, *metadata, error) {
	for off := int64(minHeaderBytes); off <= maxHeaderBytes; off *= 2 {
		if bin, m, err := readMetadata(r, off, size, check); err == nil {
			return bin, m, nil
		}
	}
	return nil, nil, errors.New("no usable secondary LUKS2 header")
}

// UUID is what the header claims to be the disk's: whoever writes a disk chooses it.
func (h *Header) UUID() string { return h.bin.uuid }

// Geometry is what the header claims, for inspection and for registering a
// disk one trusts. A guest uses the measured geometry instead.
func (h *Header) Geometry() (Geometry, error) {
	s := h.meta.Segments["0"]
	g := Geometry{
		UUID:            h.bin.uuid,
		Cipher:          s.Encryption,
		SectorBytes:     s.SectorSize,
		DataOffsetBytes: int64(s.Offset),
		PlainBytes:      h.diskBytes - int64(s.Offset),
	}
	u, err := s.suite()
	if err != nil {
		return Geometry{}, err
	}
	g.VolumeKeyBytes = u.keyBytes
	if s.Integrity != nil {
		if err := parseSuperblock(h.superblock, &g); err != nil {
			return Geometry{}, err
		}
		g.Integrity.Algorithm = u.integrity
	} else if s.Size != "dynamic" {
		n, err := parseDecimal(s.Size)
		if err != nil {
			return Geometry{}, err
		}
		g.PlainBytes = n
	}
	if err := g.Validate(); err != nil {
		return Geometry{}, err
	}
	if g.TotalBytes() > h.diskBytes {
		return Geometry{}, fmt.Errorf("disk of %d bytes, the header describes %d", h.diskBytes, g.TotalBytes())
	}
	return g, nil
}

// Unlock tries the keyslots in order. It returns ErrWrongPassphrase if none
// opens. Whether it is the workload's key the caller must check, by comparing
// VolumeKey.Digest with the measured one.
func (h *Header) Unlock(passphrase secret.Bytes) (*VolumeKey, error) {
	return h.UnlockContext(context.Background(), passphrase)
}

// UnlockContext is Unlock that ends with ctx, between one costly step and the
// next: a key derivation cannot be stopped half way.
func (h *Header) UnlockContext(ctx context.Context, passphrase secret.Bytes) (*VolumeKey, error) {
	if passphrase.Len() == 0 {
		return nil, fmt.Errorf("empty passphrase: %w", ErrWrongPassphrase)
	}
	d := h.meta.Digests["0"]
	for _, name := range h.meta.slotNames() {
		if !slices.Contains(d.Keyslots, name) {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		key, err := h.openSlot(name, passphrase.Reveal())
		if err != nil {
			return nil, fmt.Errorf("opening keyslot %s: %w", name, err)
		}
		if ctx.Err() != nil {
			clear(key)
			return nil, context.Cause(ctx)
		}
		ok, err := d.matches(key)
		if err != nil {
			return nil, err
		}
		if ok {
			return &VolumeKey{b: key}, nil
		}
		clear(key)
	}
	return nil, ErrWrongPassphrase
}

// openSlot decrypts a keyslot with whatever key the passphrase gives.
func (h *Header) openSlot(name string, passphrase []byte) ([]byte, error) {
	k := h.meta.Keyslots[name]
	stripes := slices.Clone(h.areas[name])
	defer clear(stripes)
	if err := cryptArea(stripes, k, passphrase, (*xts).decrypt); err != nil {
		return nil, err
	}
	newHash, err := hashByName(k.AF.Hash)
	if err != nil {
		return nil, err
	}
	return afMerge(stripes, k.KeyBytes, newHash), nil
}

// cryptArea runs the keyslot's cipher over an area: 512-byte sectors, counted
// from the area's start.
func cryptArea(b []byte, k keyslot, passphrase []byte, do func(*xts, []byte, uint64, *xtsScratch)) error {
	key, err := k.KDF.kdf().derive(passphrase, k.KDF.Salt, k.Area.KeyBytes)
	if err != nil {
		return err
	}
	defer clear(key)
	x, err := newXTS(key)
	if err != nil {
		return err
	}
	var s xtsScratch
	defer clear(s[:])
	for i := 0; i < len(b); i += dmSectorBytes {
		do(x, b[i:i+dmSectorBytes], uint64(i/dmSectorBytes), &s)
	}
	return nil
}

func (d *digest) matches(volumeKey []byte) (bool, error) {
	h, err := hashByName(d.Hash)
	if err != nil {
		return false, err
	}
	sum := pbkdf2Key(h, volumeKey, d.Salt, d.Iterations, len(d.Digest))
	return subtle.ConstantTimeCompare(sum, d.Digest) == 1, nil
}
