package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The page for kernel hashes in the metadata proves nothing: since edk2
// 4b1711d431 (2025) every OVMF has it, but only the AmdSev build links the code
// that reads it (OvmfPkg/AmdSev/BlobVerifierLibSevHashes). That code has the
// GUIDs of the three hashes among its constants, in the compressed volume.

// hashGUIDs are those of the command line's, the initrd's and the kernel's hash,
// as a machine has them in memory.
func hashGUIDs() [3][16]byte {
	return [3][16]byte{
		{0xd8, 0x2d, 0xd0, 0x97, 0x20, 0xbd, 0x94, 0x4c, 0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a},
		{0x31, 0xf7, 0xba, 0x44, 0x2f, 0x3a, 0xd7, 0x4b, 0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d},
		{0x37, 0x94, 0xe7, 0x4d, 0xd2, 0xab, 0x7f, 0x42, 0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b},
	}
}

// lzmaSection is EFI_GUID ee4e5898-3914-4259-9d6e-dc7bd79403cf, which stands at
// the start of a section compressed with LZMA (PI specification, volume 3,
// section 3.2.5.7; edk2 MdeModulePkg/Library/LzmaCustomDecompressLib).
var lzmaSection = []byte{0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42, 0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf}

const (
	maxVolumeBytes   = 64 << 20 // one decompressed; Debian's have 15 MiB
	maxVolumes       = 8
	sectionGUID      = 0x02 // EFI_SECTION_GUID_DEFINED
	sectionHead      = 4    // 24-bit size, type
	lzmaHeaderBytes  = 13
	volumeHeadToData = sectionHead + 16 + 2 + 2 // GUID, offset of the data, attributes
)

// VerifiesKernel says whether the firmware has the code that compares kernel,
// initrd and command line with the launched hashes, and refuses others. It tells
// builds of edk2 apart; it is no defence against firmware made to deceive, which
// is measured and for its owner to choose.
func (o *OVMF) VerifiesKernel() (bool, error) { return o.hasVolume(hasHashGUIDs) }

// MeasuresTD says whether the firmware has the driver that extends a TD's RTMRs,
// in the same sense. Without it they stay zero, whatever kernel boots.
func (o *OVMF) MeasuresTD() (bool, error) {
	return o.hasVolume(func(volume []byte) bool { return bytes.Contains(volume, tdTcg2Driver) })
}

// tdTcg2Driver is FILE_GUID f062221e-c607-44c2-b0b4-c3886331d351 of edk2's
// OvmfPkg/Tcg/TdTcg2Dxe/TdTcg2Dxe.inf, which names the driver's file in a volume.
var tdTcg2Driver = []byte{0x1e, 0x22, 0x62, 0xf0, 0x07, 0xc6, 0xc2, 0x44, 0xb0, 0xb4, 0xc3, 0x88, 0x63, 0x31, 0xd3, 0x51}

// hasVolume says whether a compressed volume of the firmware is as wanted.
func (o *OVMF) hasVolume(wanted func([]byte) bool) (bool, error) {
	volumes := 0
	for at := 0; ; {
		i := bytes.Index(o.Image[at:], lzmaSection)
		if i < 0 {
			return false, nil
		}
		start := at + i - sectionHead
		at += i + len(lzmaSection)
		section := sectionAt(o.Image, start)
		if section == nil {
			continue // the GUID as a constant of the code that decompresses
		}
		if volumes++; volumes > maxVolumes {
			return false, fmt.Errorf("more than %d compressed volumes: %w", maxVolumes, ErrOVMF)
		}
		b, err := unpackVolume(section)
		if err != nil {
			return false, fmt.Errorf("unpacking the volume at offset %#x: %w", start, err)
		}
		if wanted(b) {
			return true, nil
		}
	}
}

// sectionAt is the data of the GUID-defined section whose header is at offset
// start; nil if none can be there.
func sectionAt(image []byte, start int) []byte {
	if start < 0 || start+volumeHeadToData > len(image) {
		return nil
	}
	h := image[start:]
	size := int(h[0]) | int(h[1])<<8 | int(h[2])<<16
	data := int(binary.LittleEndian.Uint16(h[sectionHead+16:]))
	if h[3] != sectionGUID || data < volumeHeadToData || size > len(h) || data+lzmaHeaderBytes > size {
		return nil
	}
	return h[data:size]
}

func unpackVolume(b []byte) ([]byte, error) {
	size := binary.LittleEndian.Uint64(b[5:])
	dictionary := binary.LittleEndian.Uint32(b[1:])
	if size == 0 || size > maxVolumeBytes || dictionary > maxVolumeBytes {
		return nil, fmt.Errorf("%d bytes with a dictionary of %d, at most %d allowed: %w", size, dictionary, maxVolumeBytes, ErrOVMF)
	}
	r, err := lzma.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOVMF, err)
	}
	out := make([]byte, size)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOVMF, err)
	}
	return out, nil
}

func hasHashGUIDs(volume []byte) bool {
	for _, g := range hashGUIDs() {
		if !bytes.Contains(volume, g[:]) {
			return false
		}
	}
	return true
}
