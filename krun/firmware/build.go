package firmware

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// LibraryName is the soname libkrun-sev opens (LIBKRUNFW's ABI version 5).
const (
	LibraryName    = "libkrunfw-sev.so.5"
	libraryVersion = 5
)

// Layout of a generated library. The payloads are mapped writable and private
// as upstream's are (plain C arrays), so that a libkrun which hands them to
// KVM finds the same kind of mapping; nothing is writable and executable.
const (
	textAddr    = 0x1000
	dynamicAddr = 0x2000
	payloadAddr = 0x10000
)

// BuildLibrary returns an ELF64 shared object that gives libkrun the bundle's
// qboot and kernel and the initrd of a workload. Each payload is page aligned
// and padded to BundleAlign as upstream does; the initrd it returns to libkrun
// is exactly b.BootInitrd(initrd).
func BuildLibrary(b *Bundle, initrd []byte) ([]byte, error) {
	if b.Kind != KindLibkrun {
		return nil, fmt.Errorf("building library: firmware kind %q, expected %q", b.Kind, KindLibkrun)
	}
	if len(initrd) == 0 {
		return nil, errors.New("building library: no initrd")
	}
	padded, err := b.BootInitrd(initrd)
	if err != nil {
		return nil, fmt.Errorf("building library: %w", err)
	}
	w := libraryWriter{}
	w.payload("krunfw_get_kernel", b.Kernel, b.KernelLoad, b.KernelEntry)
	w.payload("krunfw_get_initrd", padded)
	w.payload("krunfw_get_qboot", b.QBoot)
	w.function("krunfw_get_version", version())
	return w.assemble(), nil
}

type libraryWriter struct {
	names    []string
	offsets  []uint64 // of each function from textAddr
	text     []byte
	payloads [][]byte
	end      uint64 // of the payloads, from payloadAddr
}

// payload adds a function that stores each of values, then the payload's
// size, through its arguments and returns the payload's address. The payload
// is mapped where the one before ended, rounded up to BundleAlign.
func (w *libraryWriter) payload(name string, p []byte, values ...uint64) {
	addr := payloadAddr + w.end
	code := endbr64()
	for i, v := range append(values, uint64(len(p))) {
		code = append(code, 0x48, 0xb8) // movabs $v, %rax
		code = binary.LittleEndian.AppendUint64(code, v)
		code = append(code, 0x48, 0x89, [3]byte{0x07, 0x06, 0x02}[i]) // mov %rax, (%rdi|%rsi|%rdx)
	}
	next := uint64(textAddr+len(w.text)) + uint64(len(code)) + 7
	code = append(code, 0x48, 0x8d, 0x05) // lea addr(%rip), %rax
	code = binary.LittleEndian.AppendUint32(code, uint32(addr-next))
	w.function(name, append(code, 0xc3))
	w.payloads = append(w.payloads, p)
	w.end += (uint64(len(p)) + BundleAlign - 1) / BundleAlign * BundleAlign
}

func endbr64() []byte { return []byte{0xf3, 0x0f, 0x1e, 0xfa} }

func version() []byte {
	code := append(endbr64(), 0xb8) // mov $5, %eax
	return append(binary.LittleEndian.AppendUint32(code, libraryVersion), 0xc3)
}

func (w *libraryWriter) function(name string, code []byte) {
	w.names = append(w.names, name)
	w.offsets = append(w.offsets, uint64(len(w.text)))
	w.text = append(w.text, code...)
	for len(w.text)%16 != 0 {
		w.text = append(w.text, 0xcc) // int3
	}
}

// tables lays out hash table, symbols and strings behind the program headers.
type tables struct {
	hash, syms, strs             []byte
	hashAddr, symsAddr, strsAddr uint64
	soname                       uint64
}

func (w *libraryWriter) tables(start uint64) tables {
	le := binary.LittleEndian
	t := tables{strs: []byte{0}, syms: make([]byte, symBytes)}
	// DT_HASH with one bucket: nbucket, nchain, bucket[0], chain[...].
	n := uint32(len(w.names) + 1)
	t.hash = le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 1), n), 1)
	t.hash = le.AppendUint32(t.hash, 0)
	for i, name := range w.names {
		t.hash = le.AppendUint32(t.hash, (uint32(i)+2)%n)
		t.syms = le.AppendUint32(t.syms, uint32(len(t.strs)))
		t.syms = append(t.syms, elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), byte(elf.STV_DEFAULT))
		t.syms = le.AppendUint16(t.syms, 1) // any section but SHN_UNDEF
		t.syms = le.AppendUint64(t.syms, textAddr+w.offsets[i])
		t.syms = le.AppendUint64(t.syms, 0)
		t.strs = append(append(t.strs, name...), 0)
	}
	t.soname = uint64(len(t.strs))
	t.strs = append(append(t.strs, LibraryName...), 0)
	t.symsAddr = start
	t.hashAddr = t.symsAddr + uint64(len(t.syms))
	t.strsAddr = t.hashAddr + uint64(len(t.hash))
	return t
}

func (t *tables) dynamic() []byte {
	var d []byte
	for _, e := range []struct {
		tag elf.DynTag
		val uint64
	}{
		{elf.DT_SONAME, t.soname}, {elf.DT_HASH, t.hashAddr}, {elf.DT_STRTAB, t.strsAddr},
		{elf.DT_SYMTAB, t.symsAddr}, {elf.DT_STRSZ, uint64(len(t.strs))}, {elf.DT_SYMENT, symBytes},
		{elf.DT_NULL, 0},
	} {
		d = binary.LittleEndian.AppendUint64(d, uint64(e.tag))
		d = binary.LittleEndian.AppendUint64(d, e.val)
	}
	return d
}

func (w *libraryWriter) assemble() []byte {
	const headers = 6
	t := w.tables(ehdrBytes + headers*phdrBytes)
	dynamic := t.dynamic()
	out := make([]byte, payloadAddr+w.end)
	copy(out, elfHeader(headers))
	copy(out[t.symsAddr:], t.syms)
	copy(out[t.hashAddr:], t.hash)
	copy(out[t.strsAddr:], t.strs)
	copy(out[textAddr:], w.text)
	copy(out[dynamicAddr:], dynamic)
	at := uint64(payloadAddr)
	for _, p := range w.payloads {
		copy(out[at:], p)
		at += (uint64(len(p)) + BundleAlign - 1) / BundleAlign * BundleAlign
	}
	ro := t.strsAddr + uint64(len(t.strs))
	ph := out[ehdrBytes:ehdrBytes]
	ph = appendSegment(ph, elf.PT_LOAD, elf.PF_R, 0, ro, PageBytes)
	ph = appendSegment(ph, elf.PT_LOAD, elf.PF_R|elf.PF_X, textAddr, uint64(len(w.text)), PageBytes)
	// Older loaders write relocated addresses into the dynamic section.
	ph = appendSegment(ph, elf.PT_LOAD, elf.PF_R|elf.PF_W, dynamicAddr, uint64(len(dynamic)), PageBytes)
	ph = appendSegment(ph, elf.PT_LOAD, elf.PF_R|elf.PF_W, payloadAddr, w.end, BundleAlign)
	ph = appendSegment(ph, elf.PT_DYNAMIC, elf.PF_R|elf.PF_W, dynamicAddr, uint64(len(dynamic)), 8)
	appendSegment(ph, elf.PT_GNU_STACK, elf.PF_R|elf.PF_W, 0, 0, 16)
	return out
}

func elfHeader(programHeaders uint16) []byte {
	le := binary.LittleEndian
	h := append([]byte(elf.ELFMAG), byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT), byte(elf.ELFOSABI_NONE))
	h = append(h, make([]byte, 8)...)
	h = le.AppendUint16(h, uint16(elf.ET_DYN))
	h = le.AppendUint16(h, uint16(elf.EM_X86_64))
	h = le.AppendUint32(h, uint32(elf.EV_CURRENT))
	h = le.AppendUint64(h, 0)         // entry
	h = le.AppendUint64(h, ehdrBytes) // program headers
	h = le.AppendUint64(h, 0)         // no section headers
	h = le.AppendUint32(h, 0)
	h = le.AppendUint16(h, ehdrBytes)
	h = le.AppendUint16(h, phdrBytes)
	h = le.AppendUint16(h, programHeaders)
	h = le.AppendUint16(h, 64)
	return le.AppendUint32(h, 0)
}

// appendSegment adds a program header whose addresses equal file offsets.
func appendSegment(b []byte, kind elf.ProgType, flags elf.ProgFlag, at, size, align uint64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(kind))
	b = le.AppendUint32(b, uint32(flags))
	for _, v := range []uint64{at, at, at, size, size, align} {
		b = le.AppendUint64(b, v)
	}
	return b
}
