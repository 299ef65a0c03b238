// Package ovmftest builds OVMF firmware files for tests: metadata as edk2
// writes it around noise instead of code.
package ovmftest

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/google/uuid"
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
}

// AmdSev is laid out as edk2's AmdSev build of 2024, 64 KiB in all.
func AmdSev() Spec {
	return Spec{
		SizeBytes: 0x10000, ResetEIP: 0x80b004, HashTableGPA: 0x810c00,
		SEV: [][3]uint32{{0x800000, 0x9000, 1}, {0x80a000, 0x3000, 1}, {0x80d000, 0x1000, 2}, {0x80e000, 0x1000, 3},
			{0x80f000, 0x1000, 4}, {0x810000, 0x1000, 0x10}, {0x811000, 0xf000, 1}},
	}
}

// TDVF is laid out as edk2's OVMF with TDX, 64 KiB in all: 16 KiB of
// variables, then code.
func TDVF() Spec {
	const size, vars = 0x10000, 0x4000
	return Spec{SizeBytes: size, TDX: []Section{
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
		u := uuid.MustParse(guid)
		le.PutUint32(b[at:], binary.BigEndian.Uint32(u[:]))
		le.PutUint16(b[at+4:], binary.BigEndian.Uint16(u[4:]))
		le.PutUint16(b[at+6:], binary.BigEndian.Uint16(u[6:]))
		copy(b[at+8:], u[8:])
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
	return b
}

func metadata(signature string, count, itemBytes int) []byte {
	le := binary.LittleEndian
	d := le.AppendUint32([]byte(signature), uint32(16+count*itemBytes))
	return le.AppendUint32(le.AppendUint32(d, 1), uint32(count))
}
