package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// vmsaText is the save area as the documentation of the profiles lists it:
// offset, width in bytes, value. "ap" lines are for secondary vCPUs, "bp" for
// the first.
var vmsaText = map[Profile]string{
	KrunfwTool: commonVMSA + `
		002 2 93, 032 2 93, 042 2 93, 052 2 93
		bp 178 8 fff0, ap 178 8 fff3, bp 1d8 8 8ff0, bp 328 8 8ff0, bp 330 8 7000`,
	Libkrun112: commonVMSA + `
		002 2 93, 032 2 93, 042 2 93, 052 2 93, 408 4 1f80, 410 2 37f
		bp 178 8 fff0, ap 178 8 fff3, bp 1d8 8 8ff0, bp 328 8 8ff0, bp 330 8 7000`,
	Libkrun116: commonVMSA + `
		002 2 92, 032 2 92, 042 2 92, 052 2 92, 408 4 1f80, 410 2 37f
		178 8 fff0, 310 8 600`,
}

const commonVMSA = `
	004 4 ffff, 014 4 ffff, 024 4 ffff, 034 4 ffff, 044 4 ffff, 054 4 ffff
	064 4 ffff, 074 4 ffff, 084 4 ffff, 094 4 ffff
	010 2 f000, 018 8 ffff0000, 012 2 9a, 022 2 92, 072 2 82, 092 2 83
	0d0 8 1000, 148 8 40, 158 8 10, 160 8 400, 168 8 ffff0ff0, 170 8 2
	268 8 7040600070406, 3b0 8 1, 3e8 8 1`

func referenceVMSA(t testing.TB, p Profile, boot bool) []byte {
	page := make([]byte, 4096)
	for field := range strings.FieldsFuncSeq(vmsaText[p], func(r rune) bool { return r == ',' || r == '\n' }) {
		f := strings.Fields(field)
		if len(f) == 0 {
			continue
		}
		if f[0] == "bp" || f[0] == "ap" {
			if (f[0] == "bp") != boot {
				continue
			}
			f = f[1:]
		}
		at, err1 := strconv.ParseUint(f[0], 16, 12)
		width, err2 := strconv.Atoi(f[1])
		v, err3 := strconv.ParseUint(f[2], 16, 64)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		for i := range width {
			page[int(at)+i] = byte(v >> (8 * i))
		}
	}
	return page
}

func TestVMSA(t *testing.T) {
	for p := range vmsaText {
		for _, boot := range []bool{true, false} {
			got, want := vmsa(p, boot), referenceVMSA(t, p, boot)
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("%s boot=%v: byte %#03x is %#02x, want %#02x", p, boot, i, got[i], want[i])
				}
			}
		}
	}
}

// bootParams is Linux's struct boot_params as far as libkrun sets it.
type bootParams struct {
	_                        [0x1e8]byte
	E820Entries              uint8
	_                        [9]byte
	RootFlags                uint16
	SysSize                  uint32
	_                        [6]byte
	BootFlag                 uint16
	_                        [2]byte
	Header                   [4]byte
	_                        [10]byte
	TypeOfLoader             uint8
	_                        [7]byte
	RamdiskImage, RamdiskLen uint32
	_                        [8]byte
	CmdlinePtr               uint32
	_                        [4]byte
	KernelAlignment          uint32
	_                        [4]byte
	CmdlineSize              uint32
	_                        [0x2d0 - 0x23c]byte
	E820                     [3]struct {
		Addr, Size uint64
		Type       uint32
	}
	_ [0x1000 - 0x2d0 - 60]byte
}

func referenceBootParams(p Profile, s Shape, initrd int) []byte {
	b := bootParams{
		E820Entries: 2, SysSize: uint32(s.CPUs), BootFlag: 0xaa55, Header: [4]byte{'H', 'd', 'r', 'S'}, TypeOfLoader: 0xff,
		RamdiskImage: 10 << 20, RamdiskLen: uint32(initrd), CmdlinePtr: 128 << 10, KernelAlignment: 16 << 20, CmdlineSize: 512,
	}
	b.E820[0].Size, b.E820[0].Type = 0x9fc00, 1
	b.E820[1].Addr, b.E820[1].Type = 1<<20, 1
	switch {
	case s.MemoryMiB < 3328:
		b.E820[1].Size = uint64(s.MemoryMiB-1)<<20 + 1
	case s.MemoryMiB == 3328 && p == KrunfwTool:
		b.E820[1].Size = 3327<<20 + 1
	case s.MemoryMiB == 3328:
		b.E820[1].Size = 3327 << 20
	default:
		b.E820Entries = 3
		b.E820[1].Size = 3327 << 20
		b.E820[2].Addr, b.E820[2].Size, b.E820[2].Type = 4<<30, uint64(s.MemoryMiB-3328)<<20+1, 1
	}
	var buf bytes.Buffer
	_ = binary.Write(&buf, binary.LittleEndian, &b)
	return buf.Bytes()
}

// pageInfo is PAGE_INFO of the SNP firmware ABI, table "Layout of the
// PAGE_INFO Structure".
type pageInfo struct {
	DigestCur, Contents          [48]byte
	Length                       uint16
	PageType, IMI                uint8
	VMPL3, VMPL2, VMPL1, Reserve uint8
	GPA                          uint64
}

type referenceChain struct{ ld [48]byte }

func (r *referenceChain) add(kind uint8, gpa uint64, data []byte, empty int) {
	for off := 0; off < len(data)+empty; off += 4096 {
		info := pageInfo{DigestCur: r.ld, Length: 112, PageType: kind, GPA: gpa}
		if empty == 0 {
			info.Contents = sha512.Sum384(data[off:][:4096])
		}
		if kind != 2 {
			info.GPA += uint64(off)
		}
		h := sha512.New384()
		_ = binary.Write(h, binary.LittleEndian, &info)
		r.ld = [48]byte(h.Sum(nil))
	}
}

func referenceSNP(t testing.TB, p Profile, in Inputs, s Shape) kbs.LaunchDigest {
	var r referenceChain
	r.add(1, 1<<32-1<<16, in.QBoot, 0)
	r.add(1, in.KernelLoad, in.Kernel, 0)
	r.add(1, 0xa00000, in.Initrd, 0)
	r.add(1, 0x7000, referenceBootParams(p, s, len(in.Initrd)), 0)
	r.add(3, 0, nil, 4096)
	r.add(5, 0x5000, nil, 4096)
	r.add(6, 0x6000, nil, 4096)
	r.add(3, 0x8000, nil, 7*4096)
	for i := range s.CPUs {
		r.add(2, 0xfffffffff000, referenceVMSA(t, p, i == 0), 0)
	}
	return kbs.LaunchDigest(r.ld)
}

func TestLibkrunAgainstReference(t *testing.T) {
	l, err := Prepare(testInputs())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[kbs.LaunchDigest]string{}
	for p := range vmsaText {
		for _, cpus := range []uint{1, 2, 4, 8} {
			for _, memory := range []uint{129, 512, 2048, 3072, 3327, 3328, 3329, 4096, 8192, 1 << 20} {
				s := Shape{cpus, memory}
				got, err := l.Digest(p, s)
				if want := referenceSNP(t, p, testInputs(), s); err != nil || got != want {
					t.Errorf("%s %+v: %v (%v), want %v", p, s, got, err, want)
				}
				if other, twice := seen[got]; twice {
					t.Errorf("%s %+v has the digest of %s", p, s, other)
				}
				seen[got] = string(p)
			}
		}
	}
}
