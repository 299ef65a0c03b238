package measure

import "encoding/binary"

// vmsa is the save area that KVM encrypts for a vCPU before it runs (AMD64
// Architecture Programmer's Manual volume 2, appendix B, table B-4). It
// depends on libkrun and KVM, not on the CPU model:
//
//   - up to libkrun 1.11, on AMD's host kernels, KVM did not sync the FPU;
//   - from 1.12, on mainline kernels, it does (sev_es_sync_vmsa), so MXCSR and
//     FCW hold their reset values;
//   - from 1.16, libkrun sets no registers for a TEE at all, so that every
//     vCPU has KVM's reset state.
func vmsa(p Profile, bootCPU bool) [pageBytes]byte {
	v := vmsaES(bootCPU)
	le := binary.LittleEndian
	le.PutUint64(v[0x3b0:], 1) // sev_features: SNP active
	if p == KrunfwTool {
		return v
	}
	le.PutUint32(v[0x408:], 0x1f80) // mxcsr
	le.PutUint16(v[0x410:], 0x37f)  // x87 fcw
	if p == Libkrun112 {
		return v
	}
	for _, seg := range dataSegments {
		le.PutUint16(v[seg+2:], 0x92)
	}
	le.PutUint64(v[0x178:], 0xfff0) // rip, of every vCPU
	le.PutUint64(v[0x310:], 0x600)  // rdx: family 6, as no CPUID was set yet
	for _, reg := range []int{0x1d8, 0x328, 0x330} {
		le.PutUint64(v[reg:], 0)
	}
	return v
}

// dataSegments are the offsets of es, ds, fs and gs.
var dataSegments = [...]int{0x00, 0x30, 0x40, 0x50}

// vmsaES is the save area of an SEV-ES guest as libkrun up to 1.10 had it,
// which all later ones vary.
func vmsaES(bootCPU bool) [pageBytes]byte {
	var v [pageBytes]byte
	le := binary.LittleEndian
	segment := func(at int, selector, attributes uint16, base uint64) {
		le.PutUint16(v[at:], selector)
		le.PutUint16(v[at+2:], attributes)
		le.PutUint32(v[at+4:], 0xffff)
		le.PutUint64(v[at+8:], base)
	}
	for _, at := range dataSegments {
		segment(at, 0, 0x93, 0)
	}
	segment(0x10, 0xf000, 0x9a, 0xffff0000) // cs
	segment(0x20, 0, 0x92, 0)               // ss
	segment(0x60, 0, 0, 0)                  // gdtr
	segment(0x70, 0, 0x82, 0)               // ldtr
	segment(0x80, 0, 0, 0)                  // idtr
	segment(0x90, 0, 0x83, 0)               // tr
	le.PutUint64(v[0x0d0:], 0x1000)         // efer: SVME
	le.PutUint64(v[0x148:], 0x40)           // cr4: MCE
	le.PutUint64(v[0x158:], 0x10)           // cr0: ET
	le.PutUint64(v[0x160:], 0x400)          // dr7
	le.PutUint64(v[0x168:], 0xffff0ff0)     // dr6
	le.PutUint64(v[0x170:], 2)              // rflags
	le.PutUint64(v[0x178:], 0xfff3)         // rip of a secondary vCPU
	le.PutUint64(v[0x268:], 0x0007040600070406)
	le.PutUint64(v[0x3e8:], 1) // xcr0
	if bootCPU {
		le.PutUint64(v[0x178:], 0xfff0)
		le.PutUint64(v[0x1d8:], 0x8ff0) // rsp
		le.PutUint64(v[0x328:], 0x8ff0) // rbp
		le.PutUint64(v[0x330:], zeroPageGPA)
	}
	return v
}
