// Package ovmftest builds OVMF firmware files for tests: metadata as edk2
// writes it around noise instead of code.
package ovmftest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/google/uuid"
	"github.com/ulikunitz/xz/lzma"
)

// Section is one item of TDVF metadata.
type Section struct {
	Offset, DataBytes    uint32
	Address, MemoryBytes uint64
	Type, Attributes     uint32
}

// Spec says what is in the file. The zero Spec has an empty table.
type Spec struct {
	SizeBytes    int
	ResetEIP     uint32      // 0: no entry
	HashTableGPA uint32      // 0: no entry
	SEV          [][3]uint32 // address, bytes, type; nil: no metadata
	TDX          []Section   // nil: no metadata
	// Volume is put at offset 0x100, compressed as edk2 does it; nil: nothing.
	Volume []byte
}

// Verifier is a volume with what is left of BlobVerifierLibSevHashes among other
// code: the GUIDs of the hashes of command line, initrd and kernel.
func Verifier() []byte {
	b := make([]byte, 8192)
	for i, guid := range []string{"97d02dd8-bd20-4c94-aa78-e7714d36ab2a", "44baf731-3a2f-4bd7-9af1-41e29169781d", "4de79437-abd2-427f-b835-d5b172d2045b"} {
		putGUID(b[100+1000*i:], guid)
	}
	return b
}

// TDDriver is a volume with the name of the driver that extends a TD's RTMRs.
func TDDriver() []byte {
	b := make([]byte, 8192)
	putGUID(b[300:], "f062221e-c607-44c2-b0b4-c3886331d351")
	return b
}

// AmdSev is laid out as edk2's AmdSev build of 2024, 64 KiB in all.
func AmdSev() Spec {
	return Spec{
		SizeBytes: 0x10000, ResetEIP: 0x80b004, HashTableGPA: 0x810c00, Volume: Verifier(),
		SEV: [][3]uint32{{0x800000, 0x9000, 1}, {0x80a000, 0x3000, 1}, {0x80d000, 0x1000, 2}, {0x80e000, 0x1000, 3},
			{0x80f000, 0x1000, 4}, {0x810000, 0x1000, 0x10}, {0x811000, 0xf000, 1}},
	}
}

// TDVF is laid out as edk2's OVMF with TDX, 64 KiB in all: 16 KiB of
// variables, then code.
func TDVF() Spec {
	const size, vars = 0x10000, 0x4000
	return Spec{SizeBytes: size, Volume: TDDriver(), TDX: []Section{
		{vars, size - vars, 1<<32 - size + vars, size - vars, 0, 1},
		{0, vars, 1<<32 - size, vars, 1, 0},
		{0, 0, 0x810000, 0x10000, 3, 0},
		{0, 0, 0x80b000, 0x2000, 3, 0},
		{0, 0, 0x809000, 0x2000, 2, 0},
		{0, 0, 0x800000, 0x6000, 3, 0},
	}}
}

// Build writes the file.
func (s Spec) Build() []byte {
	b := make([]byte, s.SizeBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	le := binary.LittleEndian
	at := len(b) - 32
	put := func(guid string, length int, data []byte) {
		at -= 16
		putGUID(b[at:], guid)
		at -= 2
		le.PutUint16(b[at:], uint16(length))
		at -= len(data)
		copy(b[at:], data)
	}
	footer := at - 18
	put("96b582de-1fb2-45f7-baea-a366c55a082d", 0, nil)
	entry := func(guid string, data []byte) { put(guid, 18+len(data), data) }
	if s.ResetEIP != 0 {
		entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", le.AppendUint32(nil, s.ResetEIP))
	}
	if s.HashTableGPA != 0 {
		entry("7255371f-3a3b-4b04-927b-1da6efa8d454", le.AppendUint32(le.AppendUint32(nil, s.HashTableGPA), 0x400))
	}
	// Metadata lies 0x800 and 0xc00 before the end.
	if s.SEV != nil {
		d := metadata("ASEV", len(s.SEV), 12)
		for _, x := range s.SEV {
			for _, v := range x {
				d = le.AppendUint32(d, v)
			}
		}
		copy(b[len(b)-0x800:], d)
		entry("dc886566-984a-4798-a75e-5585a7bf67cc", le.AppendUint32(nil, 0x800))
	}
	if s.TDX != nil {
		d := metadata("TDVF", len(s.TDX), 32)
		for _, x := range s.TDX {
			d = le.AppendUint32(le.AppendUint32(d, x.Offset), x.DataBytes)
			d = le.AppendUint64(le.AppendUint64(d, x.Address), x.MemoryBytes)
			d = le.AppendUint32(le.AppendUint32(d, x.Type), x.Attributes)
		}
		copy(b[len(b)-0xc00:], d)
		entry("e47a6535-984a-4798-865e-4685a7bf8ec2", le.AppendUint32(nil, 0xc00))
	}
	le.PutUint16(b[footer:], uint16(footer+18-at))
	if s.Volume != nil {
		copy(b[volumeOffset:], section(s.Volume))
	}
	return b
}

const volumeOffset = 0x100

// section compresses a volume into a GUID-defined section with attributes 1, as
// edk2's GenSec does.
func section(volume []byte) []byte {
	var packed bytes.Buffer
	w, err := lzma.WriterConfig{Size: int64(len(volume)), DictCap: 1 << 16}.NewWriter(&packed)
	if err == nil {
		_, err = w.Write(volume)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // of constants
	}
	head := make([]byte, 24, 24+packed.Len())
	size := cap(head)
	copy(head, []byte{byte(size), byte(size >> 8), byte(size >> 16), 2})
	putGUID(head[4:], "ee4e5898-3914-4259-9d6e-dc7bd79403cf")
	head[20], head[22] = 24, 1
	return append(head, packed.Bytes()...)
}

// putGUID writes a GUID as EFI does: the first three fields little-endian.
func putGUID(to []byte, guid string) {
	u := uuid.MustParse(guid)
	le := binary.LittleEndian
	le.PutUint32(to, binary.BigEndian.Uint32(u[:]))
	le.PutUint16(to[4:], binary.BigEndian.Uint16(u[4:]))
	le.PutUint16(to[6:], binary.BigEndian.Uint16(u[6:]))
	copy(to[8:16], u[8:])
}

func metadata(signature string, count, itemBytes int) []byte {
	le := binary.LittleEndian
	d := le.AppendUint32([]byte(signature), uint32(16+count*itemBytes))
	return le.AppendUint32(le.AppendUint32(d, 1), uint32(count))
}
