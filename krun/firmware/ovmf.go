package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// KindOVMF is UEFI firmware for QEMU's confidential machines, one .fd file.
const KindOVMF = "ovmf"

// Limits of an OVMF file and what its metadata may ask for.
const (
	MaxOVMFBytes     = 16 << 20
	maxMetadataBytes = 64 << 20 // of all sections together
	maxSections      = 64
	ovmfPage         = 4096
)

// ErrOVMF reports a file that is not OVMF, or one with metadata that QEMU
// would not launch.
var ErrOVMF = errors.New("not an OVMF firmware file for confidential machines")

// OVMF is a firmware file and what its GUIDed table says. QEMU maps the file
// so that it ends at 4 GiB.
type OVMF struct {
	Image []byte
	// SEV lists the ranges that an SNP launch adds after the image, in order;
	// nil if the firmware has no SEV metadata.
	SEV []SEVSection
	// ResetEIP is where secondary vCPUs start (SEV-ES reset block); 0 if absent.
	ResetEIP uint32
	// HashTableGPA is where the hashes of kernel, initrd and command line go; 0
	// if there is no such place. Whether the firmware looks at them, only
	// VerifiesKernel tells.
	HashTableGPA uint32
	// TDX lists the sections of the TDVF metadata, in order; nil if absent.
	TDX []TDXSection
}

// GPA is where the image starts.
func (o *OVMF) GPA() uint64 { return 1<<32 - uint64(len(o.Image)) }

// The GUIDed table (edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm) ends 32
// bytes before the file does and is read backwards. An entry is its data, a
// 16-bit length that counts all three, and its GUID.
const (
	tableEnd        = 32
	entryTail       = 2 + 16
	guidTable       = "96b582de-1fb2-45f7-baea-a366c55a082d"
	guidResetBlock  = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
	guidHashTable   = "7255371f-3a3b-4b04-927b-1da6efa8d454"
	guidSEVMetadata = "dc886566-984a-4798-a75e-5585a7bf67cc"
	guidTDXMetadata = "e47a6535-984a-4798-865e-4685a7bf8ec2"
)

// ParseOVMF reads the metadata of a firmware file. It keeps b.
func ParseOVMF(b []byte) (*OVMF, error) {
	if len(b) == 0 || len(b)%ovmfPage != 0 || len(b) > MaxOVMFBytes {
		return nil, fmt.Errorf("%d bytes, expected whole pages, at most %d bytes: %w", len(b), MaxOVMFBytes, ErrOVMF)
	}
	table, err := ovmfTable(b)
	if err != nil {
		return nil, err
	}
	o := &OVMF{Image: b, ResetEIP: firstUint32(table[guidResetBlock]), HashTableGPA: firstUint32(table[guidHashTable])}
	if entry, ok := table[guidSEVMetadata]; ok {
		if o.SEV, err = sevSections(b, entry); err != nil {
			return nil, fmt.Errorf("reading SEV metadata: %w", err)
		}
	}
	if entry, ok := table[guidTDXMetadata]; ok {
		if o.TDX, err = tdxSections(b, entry); err != nil {
			return nil, fmt.Errorf("reading TDX metadata: %w", err)
		}
	}
	return o, nil
}

func ovmfTable(b []byte) (map[string][]byte, error) {
	end := len(b) - tableEnd
	if name, _, ok := tableEntry(b[:end]); !ok || name != guidTable {
		return nil, fmt.Errorf("no GUIDed table before offset %#x: %w", end, ErrOVMF)
	}
	size := int(binary.LittleEndian.Uint16(b[end-entryTail:]))
	if size < entryTail || size > end {
		return nil, fmt.Errorf("GUIDed table of %d bytes: %w", size, ErrOVMF)
	}
	entries := map[string][]byte{}
	for rest := b[end-size : end-entryTail]; len(rest) > 0; {
		name, data, ok := tableEntry(rest)
		if !ok || len(entries) == maxSections {
			return nil, fmt.Errorf("GUIDed table with a broken entry, %d bytes before its start: %w", len(rest), ErrOVMF)
		}
		if _, twice := entries[name]; twice {
			return nil, fmt.Errorf("GUIDed table has %s twice: %w", name, ErrOVMF)
		}
		entries[name] = data
		rest = rest[:len(rest)-len(data)-entryTail]
	}
	return entries, nil
}

// tableEntry reads the entry that ends b. For the table's own, the length is
// that of all entries, and data is meaningless.
func tableEntry(b []byte) (name string, data []byte, ok bool) {
	if len(b) < entryTail {
		return "", nil, false
	}
	n := int(binary.LittleEndian.Uint16(b[len(b)-entryTail:]))
	if n < entryTail || n > len(b) {
		return "", nil, false
	}
	return efiGUID(b[len(b)-16:]), b[len(b)-n : len(b)-entryTail], true
}

// efiGUID is the text of a GUID whose first three fields are little-endian.
func efiGUID(b []byte) string {
	u := uuid.UUID{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}
	copy(u[8:], b[8:16])
	return u.String()
}

func firstUint32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// descriptor returns the metadata that entry points at, a 4-byte signature and
// the lengths after it checked: "offset from the end of the file".
func descriptor(b, entry []byte, signature string, itemBytes int) ([]byte, int, error) {
	if len(entry) != 4 {
		return nil, 0, fmt.Errorf("table entry of %d bytes, expected 4: %w", len(entry), ErrOVMF)
	}
	back := int64(binary.LittleEndian.Uint32(entry))
	if back < 16 || back > int64(len(b)) {
		return nil, 0, fmt.Errorf("%#x bytes before the end of a file of %#x: %w", back, len(b), ErrOVMF)
	}
	d := b[int64(len(b))-back:]
	if !bytes.Equal(d[:4], []byte(signature)) {
		return nil, 0, fmt.Errorf("signature %q, expected %q: %w", d[:4], signature, ErrOVMF)
	}
	size, version := binary.LittleEndian.Uint32(d[4:]), binary.LittleEndian.Uint32(d[8:])
	count := binary.LittleEndian.Uint32(d[12:])
	switch {
	case version != 1:
		return nil, 0, fmt.Errorf("version %d, expected 1: %w", version, ErrOVMF)
	case count == 0 || count > maxSections:
		return nil, 0, fmt.Errorf("%d sections, expected 1 to %d: %w", count, maxSections, ErrOVMF)
	case int64(size) != 16+int64(count)*int64(itemBytes) || int64(size) > back:
		return nil, 0, fmt.Errorf("%d bytes for %d sections: %w", size, count, ErrOVMF)
	}
	return d[16:size], int(count), nil
}
