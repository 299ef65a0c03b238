package measure

import (
	"cmp"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Offsets in a PE32+ image (Microsoft PE format).
const (
	dosNewHeader      = 0x3c
	peOptionalHeader  = 24 // after the signature and the COFF header
	peMagicPlus       = 0x20b
	peSizeOfHeaders   = 60
	peChecksum        = 64
	peDirectoryCount  = 108
	peSecurity        = 112 + 4*8 // the directory of certificates
	peSectionBytes    = 40
	peMaxSections     = 96
	setupHeaderMinEnd = 0x264
)

// kernelDigest is the Authenticode SHA-384 of the kernel as OVMF is given it.
// Of the shape it depends on low memory at most, so that many shapes share it.
func (l *Prepared) kernelDigest(stack tdxStack, s Shape) (kbs.Digest, error) {
	low := uint64(0) // the file as it is
	if stack.patched {
		low = q35Below4GiB(uint64(s.MemoryMiB) << 20)
	}
	if d, ok := l.kernels.Load(low); ok {
		return d.(kbs.Digest), nil
	}
	kernel := l.in.Kernel
	if stack.patched {
		var err error
		if kernel, err = l.in.patchedKernel(low); err != nil {
			return kbs.Digest{}, err
		}
	}
	h := sha512.New384()
	if err := authenticode(h, kernel); err != nil {
		return kbs.Digest{}, fmt.Errorf("hashing kernel: %w", err)
	}
	d := kbs.Digest(h.Sum(nil))
	l.kernels.Store(low, d)
	return d, nil
}

// authenticode hashes an EFI application as edk2 measures it (OvmfPkg/Tcg/
// TdTcg2Dxe/MeasureBootPeCoff.c): all but checksum, certificate directory and
// certificates. Unlike signing tools it pads nothing.
func authenticode(h hash.Hash, b []byte) error {
	le := binary.LittleEndian
	if len(b) < dosNewHeader+4 || string(b[:2]) != "MZ" {
		return fmt.Errorf("not a PE image: a kernel for direct boot with OVMF is a bzImage with EFI stub")
	}
	pe := uint64(le.Uint32(b[dosNewHeader:]))
	opt := pe + peOptionalHeader
	if opt+peSecurity+8 > uint64(len(b)) || string(b[pe:pe+4]) != "PE\x00\x00" || le.Uint16(b[opt:]) != peMagicPlus {
		return fmt.Errorf("no PE32+ header at %#x", pe)
	}
	headers := uint64(le.Uint32(b[opt+peSizeOfHeaders:]))
	table := opt + uint64(le.Uint16(b[pe+20:]))
	count := uint64(le.Uint16(b[pe+6:]))
	if headers < opt+peSecurity+8 || headers > uint64(len(b)) || count > peMaxSections || table+count*peSectionBytes > headers {
		return fmt.Errorf("PE headers of %d bytes with %d sections do not fit", headers, count)
	}
	h.Write(b[:opt+peChecksum])
	certificates := uint64(0)
	if le.Uint32(b[opt+peDirectoryCount:]) > 4 {
		h.Write(b[opt+peChecksum+4 : opt+peSecurity])
		h.Write(b[opt+peSecurity+8 : headers])
		certificates = uint64(le.Uint32(b[opt+peSecurity+4:]))
	} else {
		h.Write(b[opt+peChecksum+4 : headers])
	}
	sum, err := hashSections(h, b, b[table:table+count*peSectionBytes])
	if err != nil {
		return err
	}
	sum += headers
	if sum > uint64(len(b)) || sum+certificates > uint64(len(b)) {
		return fmt.Errorf("PE sections and certificates of %d bytes in a file of %d", sum+certificates, len(b))
	}
	h.Write(b[sum : uint64(len(b))-certificates])
	return nil
}

// hashSections hashes the sections by their place in the file and returns how
// many bytes they have.
func hashSections(h hash.Hash, b, table []byte) (sum uint64, err error) {
	type section struct{ at, size uint64 }
	var list []section
	for ; len(table) > 0; table = table[peSectionBytes:] {
		list = append(list, section{uint64(binary.LittleEndian.Uint32(table[20:])), uint64(binary.LittleEndian.Uint32(table[16:]))})
	}
	slices.SortStableFunc(list, func(a, b section) int { return cmp.Compare(a.at, b.at) })
	for _, s := range list {
		if s.size == 0 {
			continue
		}
		if s.at+s.size > uint64(len(b)) {
			return 0, fmt.Errorf("PE section of %d bytes at %#x in a file of %d", s.size, s.at, len(b))
		}
		h.Write(b[s.at : s.at+s.size])
		sum += s.size
	}
	return sum, nil
}

// Fields of the setup header (Linux Documentation/arch/x86/boot.rst) that QEMU
// up to 10.1 fills in also for a TD (hw/i386/x86-common.c, x86_load_linux).
const (
	setupMagic      = 0x202
	setupVersion    = 0x206
	setupLoader     = 0x210
	setupLoadFlags  = 0x211
	setupInitrd     = 0x218
	setupInitrdSize = 0x21c
	setupHeapEnd    = 0x224
	setupCmdline    = 0x228
	setupInitrdMax  = 0x22c
	setupXLoadFlags = 0x236
	xlfAbove4G      = 1 << 1
	acpiDataBytes   = 0x28000 // reserved below the end of low memory
)

// patchedKernel is the kernel file with QEMU's changes, for so many bytes of
// memory below 4 GiB.
func (in *Inputs) patchedKernel(low uint64) ([]byte, error) {
	le := binary.LittleEndian
	if strings.Contains(in.Cmdline, "vga=") {
		return nil, fmt.Errorf("command line has vga=, which QEMU writes into the kernel's header")
	}
	k := slices.Clone(in.Kernel)
	if len(k) < setupHeaderMinEnd || le.Uint32(k[setupMagic:]) != headerMagic || le.Uint16(k[setupVersion:]) < 0x20c || k[setupLoadFlags]&1 == 0 {
		return nil, fmt.Errorf("kernel has no setup header of boot protocol 2.12 or later, loaded high")
	}
	k[setupLoader] = 0xb0
	k[setupLoadFlags] |= 0x80
	le.PutUint16(k[setupHeapEnd:], cmdlineGPA-0x10000-0x200)
	le.PutUint32(k[setupCmdline:], cmdlineGPA)
	if len(in.Initrd) == 0 {
		return k, nil
	}
	limit := uint64(le.Uint32(k[setupInitrdMax:]))
	if le.Uint16(k[setupXLoadFlags:])&xlfAbove4G != 0 {
		limit = 0xffffffff
	}
	limit = min(limit, low-acpiDataBytes-1)
	if uint64(len(in.Initrd)) >= limit {
		return nil, fmt.Errorf("initrd of %d bytes does not fit below %#x", len(in.Initrd), limit)
	}
	le.PutUint32(k[setupInitrd:], uint32(limit-uint64(len(in.Initrd)))&^0xfff)
	le.PutUint32(k[setupInitrdSize:], uint32(len(in.Initrd)))
	return k, nil
}
