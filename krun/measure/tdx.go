package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// libkrun's TDX machine adds [0, 2 GiB) without measuring its content, then
// qboot with it (src/vmm/src/linux/tee/inteltdx.rs). Kernel, initrd and boot
// parameters lie in the former.
const (
	tdxRAMBytes   = 2 << 30
	tdxChunkBytes = 256
)

// mrtd is the MRTD while it is built (Intel TDX Module Base Architecture
// Specification, "TD Measurement"; ABI reference, TDH.MEM.PAGE.ADD and
// TDH.MR.EXTEND): SHA-384 over one record of 128 bytes per operation, an
// extension followed by its 256 bytes.
type mrtd struct {
	h   hash.Hash
	rec [128]byte
}

func (m *mrtd) record(op string, gpa uint64) {
	clear(m.rec[:24])
	copy(m.rec[:16], op)
	binary.LittleEndian.PutUint64(m.rec[16:], gpa)
	m.h.Write(m.rec[:])
}

func (m *mrtd) pageAdd(gpa uint64) { m.record("MEM.PAGE.ADD", gpa) }

func (m *mrtd) extend(gpa uint64, page []byte) {
	for off := 0; off < len(page); off += tdxChunkBytes {
		m.record("MR.EXTEND", gpa+uint64(off))
		m.h.Write(page[off : off+tdxChunkBytes])
	}
}

func (l *Prepared) libkrunTDX(s Shape) (kbs.LaunchDigest, error) {
	if s.MemoryMiB < minTDXMiB {
		return kbs.LaunchDigest{}, fmt.Errorf("%d MiB of memory, expected at least %d: libkrun adds 2 GiB", s.MemoryMiB, minTDXMiB)
	}
	if err := l.in.checkLibkrun(s); err != nil {
		return kbs.LaunchDigest{}, err
	}
	m := mrtd{h: sha512.New384()}
	for gpa := uint64(0); gpa < tdxRAMBytes; gpa += pageBytes {
		m.pageAdd(gpa)
	}
	for off := 0; off < len(l.in.QBoot); off += pageBytes {
		page := l.in.QBoot[off : off+pageBytes]
		m.pageAdd(qbootGPA + uint64(off))
		m.extend(qbootGPA+uint64(off), page)
	}
	return kbs.LaunchDigest(m.h.Sum(nil)), nil
}
