package measure

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/krun/firmware"
)

// QEMU's q35 has at most 2 GiB below 4 GiB as soon as memory reaches 2816 MiB
// (hw/i386/pc_q35.c).
const (
	q35Split    = 0xb0000000
	q35BelowGap = 0x80000000
)

func q35Below4GiB(ram uint64) uint64 {
	if ram >= q35Split {
		return q35BelowGap
	}
	return ram
}

// HOBs (UEFI Platform Initialization Specification 1.8, volume 3, chapter 5).
const (
	hobHandoff       = 1
	hobHandoffBytes  = 56
	hobHandoffVer    = 9
	hobResource      = 3
	hobResourceBytes = 48
	hobEndBytes      = 8
	memorySystem     = 0
	memoryUnaccepted = 7
	memoryAttributes = 7 // present, initialized, tested
)

type ramRange struct {
	start, end uint64
	accepted   bool
}

// tdHOB is the memory map that QEMU gives TDVF (hw/i386/tdvf-hob.c), as far as
// OVMF measures it: without the end mark.
func (in *Inputs) tdHOB(s Shape) ([]byte, error) {
	ram := uint64(s.MemoryMiB) << 20
	below := q35Below4GiB(ram)
	ranges := []ramRange{{start: 0, end: below}}
	if ram > below {
		ranges = append(ranges, ramRange{start: fourGiB, end: fourGiB + ram - below})
	}
	var at uint64
	for _, section := range in.OVMF.TDX {
		switch section.Type {
		case firmware.TDXHOB:
			at = section.GPA
		case firmware.TDXTemporary:
		default:
			continue
		}
		var ok bool
		if ranges, ok = accept(ranges, section.GPA, section.GPA+section.SizeBytes); !ok {
			return nil, fmt.Errorf("%d MiB of memory do not reach the firmware's section at %#x", s.MemoryMiB, section.GPA)
		}
	}
	le := binary.LittleEndian
	b := make([]byte, hobHandoffBytes, hobHandoffBytes+len(ranges)*hobResourceBytes)
	le.PutUint16(b, hobHandoff)
	le.PutUint16(b[2:], hobHandoffBytes)
	le.PutUint32(b[8:], hobHandoffVer)
	for _, r := range ranges {
		var h [hobResourceBytes]byte
		le.PutUint16(h[:], hobResource)
		le.PutUint16(h[2:], hobResourceBytes)
		le.PutUint32(h[24:], memoryUnaccepted)
		if r.accepted {
			le.PutUint32(h[24:], memorySystem)
		}
		le.PutUint32(h[28:], memoryAttributes)
		le.PutUint64(h[32:], r.start)
		le.PutUint64(h[40:], r.end-r.start)
		b = append(b, h[:]...)
	}
	le.PutUint64(b[48:], at+uint64(len(b))+hobEndBytes)
	return b, nil
}

// accept splits the range that holds [start, end), as QEMU's
// tdx_accept_ram_range does; neighbours are not joined.
func accept(ranges []ramRange, start, end uint64) ([]ramRange, bool) {
	i := slices.IndexFunc(ranges, func(r ramRange) bool { return r.start <= start && end <= r.end })
	if i < 0 {
		return nil, false
	}
	r := ranges[i]
	if r.accepted {
		return ranges, true
	}
	parts := []ramRange{{r.start, start, false}, {start, end, true}, {end, r.end, false}}
	parts = slices.DeleteFunc(parts, func(p ramRange) bool { return p.start == p.end })
	return slices.Replace(ranges, i, i+1, parts...), true
}
