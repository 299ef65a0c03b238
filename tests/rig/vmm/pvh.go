package main

import (
	"bytes"
	"encoding/binary"
	"errors"
)

const (
	pvhNote     = 18 // XEN_ELFNOTE_PHYS32_ENTRY
	elfHeader   = 64
	programHead = 56
	elfContent  = 4096
)

// pvhELF wraps libkrunfw's flat kernel, which libkrun loads and enters itself,
// into an ELF file that QEMU boots by PVH. The entry is in a note that the
// kernel carries among its data (Xen's docs/misc/pvh.pandoc).
func pvhELF(kernel []byte, load uint64) ([]byte, error) {
	at := bytes.Index(kernel, []byte("\x12\x00\x00\x00Xen\x00"))
	if at < 8 || at+12 > len(kernel) {
		return nil, errors.New("the kernel has no note with a PVH entry")
	}
	le := binary.LittleEndian
	entry := le.Uint32(kernel[at+8:])
	note := append([]byte{4, 0, 0, 0, 8, 0, 0, 0, pvhNote, 0, 0, 0, 'X', 'e', 'n', 0}, le.AppendUint64(nil, uint64(entry))...)

	b := make([]byte, elfContent, elfContent+len(kernel))
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // ET_EXEC
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], uint64(entry))
	le.PutUint64(b[32:], elfHeader)
	le.PutUint16(b[52:], elfHeader)
	le.PutUint16(b[54:], programHead)
	le.PutUint16(b[56:], 2)
	le.PutUint16(b[58:], 64)
	segment(b[elfHeader:], 1, 7, elfContent, load, uint64(len(kernel)))
	noteAt := uint64(elfHeader + 2*programHead)
	segment(b[elfHeader+programHead:], 4, 4, noteAt, 0, uint64(len(note)))
	copy(b[noteAt:], note)
	return append(b, kernel...), nil
}

// segment writes one program header: type, flags, offset, address, size.
func segment(b []byte, kind, flags uint32, offset, address, size uint64) {
	le := binary.LittleEndian
	le.PutUint32(b, kind)
	le.PutUint32(b[4:], flags)
	for i, v := range []uint64{offset, address, address, size, size, 4} {
		le.PutUint64(b[8+8*i:], v)
	}
}
