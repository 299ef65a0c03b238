package firmware

import (
	"encoding/binary"
	"fmt"
)

// SEVSectionType says what QEMU does with a range of SEV metadata (edk2
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm).
type SEVSectionType uint32

// The section types.
const (
	SEVMemory       SEVSectionType = 1 // zero pages
	SEVSecrets      SEVSectionType = 2
	SEVCPUID        SEVSectionType = 3
	SEVCallingArea  SEVSectionType = 4 // of an SVSM; zero pages without one
	SEVKernelHashes SEVSectionType = 0x10
)

// SEVSection is a range of guest memory that an SNP launch adds.
type SEVSection struct {
	GPA, SizeBytes uint64
	Type           SEVSectionType
}

const sevSectionBytes = 12

func sevSections(b, entry []byte) ([]SEVSection, error) {
	raw, count, err := descriptor(b, entry, "ASEV", sevSectionBytes)
	if err != nil {
		return nil, err
	}
	list := make([]SEVSection, count)
	var total uint64
	for i := range list {
		item := raw[i*sevSectionBytes:]
		s := SEVSection{
			GPA:       uint64(binary.LittleEndian.Uint32(item)),
			SizeBytes: uint64(binary.LittleEndian.Uint32(item[4:])),
			Type:      SEVSectionType(binary.LittleEndian.Uint32(item[8:])),
		}
		total += s.SizeBytes
		if err := s.check(uint64(len(b))); err != nil {
			return nil, fmt.Errorf("section %d: %w", i, err)
		}
		for _, before := range list[:i] {
			if s.GPA < before.GPA+before.SizeBytes && before.GPA < s.GPA+s.SizeBytes {
				return nil, fmt.Errorf("section %d at %#x runs into the one at %#x: %w", i, s.GPA, before.GPA, ErrOVMF)
			}
		}
		list[i] = s
	}
	if total > maxMetadataBytes {
		return nil, fmt.Errorf("sections of %d bytes, at most %d allowed: %w", total, maxMetadataBytes, ErrOVMF)
	}
	return list, nil
}

// check refuses what no launch can do. Empty sections are left in by firmware
// that is built for TDX only; measuring SNP refuses them.
func (s SEVSection) check(imageBytes uint64) error {
	switch {
	case s.GPA%ovmfPage != 0 || s.SizeBytes%ovmfPage != 0:
		return fmt.Errorf("%#x bytes at %#x, expected whole pages: %w", s.SizeBytes, s.GPA, ErrOVMF)
	case s.GPA+s.SizeBytes > 1<<32-imageBytes:
		return fmt.Errorf("%#x bytes at %#x run into the firmware: %w", s.SizeBytes, s.GPA, ErrOVMF)
	}
	switch s.Type {
	case SEVMemory, SEVCallingArea:
	case SEVSecrets, SEVCPUID, SEVKernelHashes:
		if s.SizeBytes != ovmfPage {
			return fmt.Errorf("%#x bytes of type %d, expected one page: %w", s.SizeBytes, s.Type, ErrOVMF)
		}
	default:
		return fmt.Errorf("unknown type %#x: %w", s.Type, ErrOVMF)
	}
	return nil
}
