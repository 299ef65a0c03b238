package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The binary header, big endian (LUKS2 specification, section 2.1).
const (
	binaryBytes     = 4096
	magicPrimary    = "LUKS\xba\xbe"
	magicSecondary  = "SKUL\xba\xbe"
	offVersion      = 6
	offHeaderBytes  = 8
	offSequence     = 16
	offChecksumName = 72
	offSalt         = 104
	offUUID         = 168
	offHeaderOffset = 256
	offChecksum     = 448
	checksumBytes   = 64
	headerSaltBytes = 64

	// A metadata copy is 16 KiB to 4 MiB, a power of two (section 2.3); we
	// stop at 1 MiB, sixty-four times what cryptsetup writes.
	minHeaderBytes = 16 << 10
	maxHeaderBytes = 1 << 20
)

// binaryHeader is what we keep of a metadata copy's binary part.
type binaryHeader struct {
	headerBytes int64 // binary and JSON together
	sequence    uint64
	uuid        string
}

// encode renders one metadata copy: binary header, JSON, zeros, checksum.
func (h *binaryHeader) encode(js, salt []byte, secondary bool) ([]byte, error) {
	if len(js) >= int(h.headerBytes)-binaryBytes {
		return nil, fmt.Errorf("LUKS2 metadata of %d bytes does not fit %d", len(js), h.headerBytes-binaryBytes)
	}
	b := make([]byte, h.headerBytes)
	magic := magicPrimary
	if secondary {
		magic = magicSecondary
		binary.BigEndian.PutUint64(b[offHeaderOffset:], uint64(h.headerBytes))
	}
	copy(b, magic)
	binary.BigEndian.PutUint16(b[offVersion:], 2)
	binary.BigEndian.PutUint64(b[offHeaderBytes:], uint64(h.headerBytes))
	binary.BigEndian.PutUint64(b[offSequence:], h.sequence)
	copy(b[offChecksumName:], "sha256")
	copy(b[offSalt:offSalt+headerSaltBytes], salt)
	copy(b[offUUID:], h.uuid)
	copy(b[binaryBytes:], js)
	sum := sha256.Sum256(b)
	copy(b[offChecksum:], sum[:])
	return b, nil
}

// readCopy reads the metadata copy at off and returns its JSON area.
func readCopy(r io.ReaderAt, off, size int64) (*binaryHeader, []byte, error) {
	var fixed [binaryBytes]byte
	if off+binaryBytes > size {
		return nil, nil, errors.New("disk ends before the LUKS2 header")
	}
	if err := readAt(r, fixed[:], off); err != nil {
		return nil, nil, fmt.Errorf("reading LUKS2 header: %w", err)
	}
	h, err := parseBinary(fixed[:], off)
	if err != nil {
		return nil, nil, err
	}
	if off+h.headerBytes > size {
		return nil, nil, fmt.Errorf("LUKS2 header of %d bytes at %d exceeds the disk's %d", h.headerBytes, off, size)
	}
	b := make([]byte, h.headerBytes)
	copy(b, fixed[:]) // never read twice what was already checked
	if err := readAt(r, b[binaryBytes:], off+binaryBytes); err != nil {
		return nil, nil, fmt.Errorf("reading LUKS2 metadata: %w", err)
	}
	want := sha256.Sum256(checksumInput(b))
	if subtle.ConstantTimeCompare(want[:], fixed[offChecksum:offChecksum+sha256.Size]) != 1 {
		return nil, nil, fmt.Errorf("LUKS2 header at %d: wrong checksum", off)
	}
	return h, b[binaryBytes:], nil
}

// checksumInput zeroes the checksum in b.
func checksumInput(b []byte) []byte {
	clear(b[offChecksum : offChecksum+checksumBytes])
	return b
}

func parseBinary(b []byte, off int64) (*binaryHeader, error) {
	magic := magicPrimary
	if off != 0 {
		magic = magicSecondary
	}
	size := binary.BigEndian.Uint64(b[offHeaderBytes:])
	switch {
	case string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("no LUKS2 magic at %d", off)
	case binary.BigEndian.Uint16(b[offVersion:]) != 2:
		return nil, fmt.Errorf("LUKS version %d, expected 2", binary.BigEndian.Uint16(b[offVersion:]))
	case size < minHeaderBytes || size > maxHeaderBytes || size&(size-1) != 0:
		return nil, fmt.Errorf("LUKS2 header of %d bytes, expected a power of two from %d to %d", size, minHeaderBytes, maxHeaderBytes)
	case binary.BigEndian.Uint64(b[offHeaderOffset:]) != uint64(off):
		return nil, fmt.Errorf("LUKS2 header at %d says it is at %d", off, binary.BigEndian.Uint64(b[offHeaderOffset:]))
	case off != 0 && uint64(off) != size:
		return nil, fmt.Errorf("secondary LUKS2 header at %d says it has %d bytes", off, size)
	case cString(b[offChecksumName:offChecksumName+32]) != "sha256":
		return nil, fmt.Errorf("LUKS2 checksum %.32q, expected sha256", cString(b[offChecksumName:offChecksumName+32]))
	}
	uuid := cString(b[offUUID : offUUID+40])
	if !validUUID(uuid, lowerHex) {
		return nil, fmt.Errorf("LUKS2 UUID %.40q, expected the lower-case 8-4-4-4-12 form", uuid)
	}
	return &binaryHeader{headerBytes: int64(size), sequence: binary.BigEndian.Uint64(b[offSequence:]), uuid: uuid}, nil
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// readAt fills b from off. io.ReaderAt may report the end of the disk along
// with the last bytes.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
