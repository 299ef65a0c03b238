package measure

import "encoding/binary"

// Memory layout (libkrun src/arch/src/x86_64/layout.rs).
const (
	ebdaStart  = 0x9fc00
	himemStart = 0x100000
	gapStart   = 0xd0000000 // MMIO below 4 GiB: 3328 MiB of memory come first
	fourGiB    = 1 << 32
)

// Offsets in struct boot_params (Linux Documentation/arch/x86/zero-page.rst
// and boot.rst).
const (
	bpE820Entries   = 0x1e8
	bpRootFlags     = 0x1f2
	bpSysSize       = 0x1f4
	bpBootFlag      = 0x1fe
	bpHeader        = 0x202
	bpTypeOfLoader  = 0x210
	bpRamdiskImage  = 0x218
	bpRamdiskSize   = 0x21c
	bpCmdlinePtr    = 0x228
	bpKernelAlign   = 0x230
	bpCmdlineSize   = 0x238
	bpE820Table     = 0x2d0
	e820EntryBytes  = 20
	e820RAM         = 1
	headerMagic     = 0x53726448 // "HdrS"
	sevCmdlineBytes = 0x200      // CMDLINE_SEV_SIZE, whatever the command line
)

// zeroPage is the boot_params page that libkrun's configure_64bit_boot writes
// for a TEE (src/arch/src/x86_64/mod.rs).
func zeroPage(p Profile, s Shape, initrdBytes uint32) [pageBytes]byte {
	var z [pageBytes]byte
	le := binary.LittleEndian
	le.PutUint32(z[bpSysSize:], uint32(s.CPUs)) // how qboot learns the number of vCPUs
	le.PutUint16(z[bpBootFlag:], 0xaa55)
	le.PutUint32(z[bpHeader:], headerMagic)
	z[bpTypeOfLoader] = 0xff
	le.PutUint32(z[bpRamdiskImage:], initrdGPA)
	le.PutUint32(z[bpRamdiskSize:], initrdBytes)
	le.PutUint32(z[bpCmdlinePtr:], cmdlineGPA)
	le.PutUint32(z[bpKernelAlign:], 0x01000000)
	le.PutUint32(z[bpCmdlineSize:], sevCmdlineBytes)
	putE820(&z, e820(p, s.MemoryMiB))
	return z
}

type e820Range struct{ addr, size uint64 }

func putE820(z *[pageBytes]byte, ranges []e820Range) {
	z[bpE820Entries] = byte(len(ranges))
	for i, r := range ranges {
		at := z[bpE820Table+i*e820EntryBytes:]
		binary.LittleEndian.PutUint64(at, r.addr)
		binary.LittleEndian.PutUint64(at[8:], r.size)
		binary.LittleEndian.PutUint32(at[16:], e820RAM)
	}
}

// e820 is the memory map. The last range is one byte longer than it should
// be, except where memory ends at the gap: libkrun adds 1 to an end that is
// exclusive already, and what boots is what is measured. At exactly 3328 MiB
// krunfw_measurement compares with <= where libkrun has <.
func e820(p Profile, memoryMiB uint) []e820Range {
	last := uint64(memoryMiB) << 20
	if last > gapStart {
		last = fourGiB + last - gapStart
	}
	low := e820Range{0, ebdaStart}
	if last < gapStart || last == gapStart && p == KrunfwTool {
		return []e820Range{low, {himemStart, last - himemStart + 1}}
	}
	ranges := []e820Range{low, {himemStart, gapStart - himemStart}}
	if last > fourGiB {
		ranges = append(ranges, e820Range{fourGiB, last - fourGiB + 1})
	}
	return ranges
}
