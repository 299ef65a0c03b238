package firmware

import (
	"encoding/binary"
	"fmt"
)

// TDXSectionType is a section type of TDVF metadata (Intel TDX Virtual
// Firmware Design Guide 11.2). QEMU supports these four.
type TDXSectionType uint32

// The section types.
const (
	TDXBootFirmware  TDXSectionType = 0 // BFV: code, measured into the MRTD
	TDXConfiguration TDXSectionType = 1 // CFV: variables, measured into RTMR0
	TDXHOB           TDXSectionType = 2 // the VMM's description of memory
	TDXTemporary     TDXSectionType = 3
)

// TDXSection is a range of guest memory that a TDX launch adds.
type TDXSection struct {
	Data           []byte // from the image; nil for zeros
	GPA, SizeBytes uint64
	Type           TDXSectionType
	Extend         bool // its content goes into the MRTD, not only its address
}

const (
	tdxSectionBytes = 32
	attrExtend      = 1 << 0 // MR.EXTEND
)

func tdxSections(b, entry []byte) ([]TDXSection, error) {
	raw, count, err := descriptor(b, entry, "TDVF", tdxSectionBytes)
	if err != nil {
		return nil, err
	}
	list := make([]TDXSection, count)
	var total uint64
	hobs := 0
	for i := range list {
		s, err := tdxSection(b, raw[i*tdxSectionBytes:])
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", i, err)
		}
		for _, before := range list[:i] {
			if s.GPA < before.GPA+before.SizeBytes && before.GPA < s.GPA+s.SizeBytes {
				return nil, fmt.Errorf("section %d at %#x runs into the one at %#x: %w", i, s.GPA, before.GPA, ErrOVMF)
			}
		}
		if s.Type == TDXHOB {
			hobs++
		}
		total += s.SizeBytes
		list[i] = s
	}
	if total > maxMetadataBytes || hobs != 1 {
		return nil, fmt.Errorf("sections of %d bytes, at most %d allowed, with %d TD HOBs, expected 1: %w", total, maxMetadataBytes, hobs, ErrOVMF)
	}
	return list, nil
}

// tdxSection reads one section with the checks of QEMU's hw/i386/tdvf.c, and
// refuses sections that QEMU would fill from beyond their data.
func tdxSection(b, item []byte) (s TDXSection, err error) {
	le := binary.LittleEndian
	offset, length := uint64(le.Uint32(item)), uint64(le.Uint32(item[4:]))
	s = TDXSection{GPA: le.Uint64(item[8:]), SizeBytes: le.Uint64(item[16:]), Type: TDXSectionType(le.Uint32(item[24:]))}
	attributes := le.Uint32(item[28:])
	s.Extend = attributes == attrExtend
	switch {
	case s.GPA%ovmfPage != 0 || s.SizeBytes%ovmfPage != 0 || s.SizeBytes == 0:
		return s, fmt.Errorf("%#x bytes at %#x, expected whole pages: %w", s.SizeBytes, s.GPA, ErrOVMF)
	case s.GPA > 1<<32 || s.SizeBytes > 1<<32-s.GPA:
		return s, fmt.Errorf("%#x bytes at %#x, expected an address below 4 GiB: %w", s.SizeBytes, s.GPA, ErrOVMF)
	case attributes&^attrExtend != 0:
		return s, fmt.Errorf("attributes %#x, which QEMU does not support: %w", attributes, ErrOVMF)
	case offset > uint64(len(b)) || length > uint64(len(b))-offset:
		return s, fmt.Errorf("%#x bytes at offset %#x of a file of %#x: %w", length, offset, len(b), ErrOVMF)
	}
	switch s.Type {
	case TDXBootFirmware, TDXConfiguration:
		if length != s.SizeBytes {
			return s, fmt.Errorf("%#x bytes of data for %#x bytes of memory: %w", length, s.SizeBytes, ErrOVMF)
		}
		s.Data = b[offset : offset+length]
	case TDXHOB, TDXTemporary:
		if length != 0 || s.Extend {
			return s, fmt.Errorf("%#x bytes of data, attributes %#x for type %d, expected none: %w", length, attributes, s.Type, ErrOVMF)
		}
	default:
		return s, fmt.Errorf("type %d, which QEMU does not support: %w", s.Type, ErrOVMF)
	}
	return s, nil
}
