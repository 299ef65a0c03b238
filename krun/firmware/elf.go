package firmware

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// The library is read as the dynamic loader would read it: program headers
// and PT_DYNAMIC only. Section headers may say anything, because dlopen does
// not look at them (ELF-64 Object File Format 1.5; System V gABI chapter 5).

const (
	ehdrBytes = 64
	phdrBytes = 56
	symBytes  = 24
	relaBytes = 24
	dynBytes  = 16

	maxSegments   = 32
	maxDynamic    = 256
	maxSymbols    = 4096
	maxRelocs     = 65536
	maxNameLength = 128
)

type segment struct {
	offset, vaddr, filesz, memsz uint64
	flags                        elf.ProgFlag
}

type symbol struct {
	name  string
	kind  elf.SymType
	value uint64
	size  uint64
	shndx uint16
}

// image is a shared object laid out as the loader maps it.
type image struct {
	file     []byte
	segments []segment
	dynamic  map[elf.DynTag]uint64
	symbols  []symbol
	// pointers holds the words that relocation sets to a symbol's address
	// (R_X86_64_GLOB_DAT, R_X86_64_64) or to a plain address (_RELATIVE).
	pointers map[uint64]uint64
	// patched lists every address that relocation writes 8 bytes to.
	patched []uint64
}

func parseImage(file []byte) (*image, error) {
	im := &image{file: file}
	for _, step := range []func() error{im.readSegments, im.readDynamic, im.readSymbols, im.readRelocations} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return im, nil
}

func (im *image) readSegments() error {
	f := im.file
	if len(f) < ehdrBytes || string(f[:4]) != elf.ELFMAG {
		return errors.New("not an ELF file")
	}
	le := binary.LittleEndian
	if elf.Class(f[4]) != elf.ELFCLASS64 || elf.Data(f[5]) != elf.ELFDATA2LSB ||
		elf.Type(le.Uint16(f[16:])) != elf.ET_DYN || elf.Machine(le.Uint16(f[18:])) != elf.EM_X86_64 {
		return errors.New("not an x86-64 shared object")
	}
	phoff, phentsize, phnum := le.Uint64(f[32:]), le.Uint16(f[54:]), int(le.Uint16(f[56:]))
	if phentsize != phdrBytes || phnum == 0 || phnum > maxSegments {
		return fmt.Errorf("%d program headers of %d bytes, expected 1 to %d of %d", phnum, phentsize, maxSegments, phdrBytes)
	}
	table, err := within(f, phoff, uint64(phnum*phdrBytes))
	if err != nil {
		return fmt.Errorf("reading program headers: %w", err)
	}
	for ; len(table) > 0; table = table[phdrBytes:] {
		if err := im.addSegment(table); err != nil {
			return err
		}
	}
	if len(im.segments) == 0 || im.dynamic == nil {
		return errors.New("shared object without PT_LOAD or PT_DYNAMIC")
	}
	return nil
}

func (im *image) addSegment(ph []byte) error {
	le := binary.LittleEndian
	s := segment{
		flags: elf.ProgFlag(le.Uint32(ph[4:])), offset: le.Uint64(ph[8:]), vaddr: le.Uint64(ph[16:]),
		filesz: le.Uint64(ph[32:]), memsz: le.Uint64(ph[40:]),
	}
	if _, err := within(im.file, s.offset, s.filesz); err != nil {
		return fmt.Errorf("reading segment: %w", err)
	}
	if s.memsz < s.filesz || s.vaddr+s.memsz < s.vaddr {
		return fmt.Errorf("segment at %#x with %d bytes in the file and %d in memory", s.vaddr, s.filesz, s.memsz)
	}
	switch elf.ProgType(le.Uint32(ph)) {
	case elf.PT_LOAD:
		for _, o := range im.segments {
			if s.vaddr < o.vaddr+o.memsz && o.vaddr < s.vaddr+s.memsz {
				return fmt.Errorf("segments at %#x and %#x overlap", o.vaddr, s.vaddr)
			}
		}
		im.segments = append(im.segments, s)
	case elf.PT_DYNAMIC:
		if im.dynamic != nil {
			return errors.New("two PT_DYNAMIC segments")
		}
		return im.parseDynamic(s)
	}
	return nil
}

func (im *image) parseDynamic(s segment) error {
	im.dynamic = map[elf.DynTag]uint64{}
	raw, err := within(im.file, s.offset, s.filesz)
	if err != nil {
		return err
	}
	for n := 0; len(raw) >= dynBytes; n, raw = n+1, raw[dynBytes:] {
		tag := elf.DynTag(binary.LittleEndian.Uint64(raw))
		if tag == elf.DT_NULL {
			return nil
		}
		if n == maxDynamic {
			return fmt.Errorf("more than %d dynamic entries", maxDynamic)
		}
		if _, twice := im.dynamic[tag]; twice && tag != elf.DT_NEEDED {
			return fmt.Errorf("dynamic entry %v appears twice", tag)
		}
		im.dynamic[tag] = binary.LittleEndian.Uint64(raw[8:])
	}
	return errors.New("dynamic section without an end")
}

func (im *image) readDynamic() error {
	for _, tag := range []elf.DynTag{elf.DT_SYMTAB, elf.DT_STRTAB, elf.DT_STRSZ} {
		if _, ok := im.dynamic[tag]; !ok {
			return fmt.Errorf("shared object without %v", tag)
		}
	}
	if _, ok := im.dynamic[elf.DT_TEXTREL]; ok {
		return errors.New("shared object relocates its code (DT_TEXTREL)")
	}
	return nil
}

// at returns n bytes at address vaddr, all of them from the file.
func (im *image) at(vaddr, n uint64) ([]byte, error) {
	for _, s := range im.segments {
		if off := vaddr - s.vaddr; vaddr >= s.vaddr && off <= s.filesz && n <= s.filesz-off {
			return within(im.file, s.offset+off, n)
		}
	}
	return nil, fmt.Errorf("%d bytes at %#x are not within one segment of the file", n, vaddr)
}

func within(b []byte, off, n uint64) ([]byte, error) {
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return nil, fmt.Errorf("%d bytes at offset %d of a file of %d", n, off, len(b))
	}
	return b[off : off+n], nil
}

// tail returns the bytes from vaddr to the end of its segment, at most n.
func (im *image) tail(vaddr, n uint64) ([]byte, error) {
	for _, s := range im.segments {
		if off := vaddr - s.vaddr; vaddr >= s.vaddr && off < s.filesz {
			return within(im.file, s.offset+off, min(n, s.filesz-off))
		}
	}
	return nil, fmt.Errorf("address %#x is not in the file", vaddr)
}

func (im *image) readSymbols() error {
	strtab, err := im.at(im.dynamic[elf.DT_STRTAB], im.dynamic[elf.DT_STRSZ])
	if err != nil {
		return fmt.Errorf("reading dynamic strings: %w", err)
	}
	count, err := im.symbolCount()
	if err != nil {
		return fmt.Errorf("counting dynamic symbols: %w", err)
	}
	table, err := im.at(im.dynamic[elf.DT_SYMTAB], uint64(count)*symBytes)
	if err != nil {
		return fmt.Errorf("reading dynamic symbols: %w", err)
	}
	le := binary.LittleEndian
	for ; len(table) > 0; table = table[symBytes:] {
		s := symbol{
			kind: elf.ST_TYPE(table[4]), shndx: le.Uint16(table[6:]),
			value: le.Uint64(table[8:]), size: le.Uint64(table[16:]),
		}
		if s.name, err = stringAt(strtab, uint64(le.Uint32(table))); err != nil {
			return err
		}
		im.symbols = append(im.symbols, s)
	}
	return nil
}

func stringAt(strtab []byte, off uint64) (string, error) {
	if off >= uint64(len(strtab)) {
		return "", fmt.Errorf("symbol name at offset %d of %d bytes of strings", off, len(strtab))
	}
	rest := strtab[off:]
	end := bytes.IndexByte(rest[:min(len(rest), maxNameLength)], 0)
	if end < 0 {
		return "", fmt.Errorf("symbol name longer than %d bytes", maxNameLength-1)
	}
	return string(rest[:end]), nil
}

// symbolCount finds the number of dynamic symbols, which only the hash tables
// know: DT_HASH says it outright, DT_GNU_HASH through its last chain.
func (im *image) symbolCount() (int, error) {
	le := binary.LittleEndian
	if addr, ok := im.dynamic[elf.DT_HASH]; ok {
		h, err := im.at(addr, 8)
		if err != nil {
			return 0, err
		}
		return boundedCount(le.Uint32(h[4:]))
	}
	addr, ok := im.dynamic[elf.DT_GNU_HASH]
	if !ok {
		return 0, errors.New("neither DT_HASH nor DT_GNU_HASH")
	}
	h, err := im.at(addr, 16)
	if err != nil {
		return 0, err
	}
	buckets, first, bloom := le.Uint32(h), le.Uint32(h[4:]), le.Uint32(h[8:])
	if buckets == 0 || buckets > maxSymbols || first > maxSymbols || bloom > maxSymbols {
		return 0, errors.New("implausible DT_GNU_HASH header")
	}
	return im.gnuHashCount(addr+16+8*uint64(bloom), buckets, first)
}

func (im *image) gnuHashCount(bucketAddr uint64, buckets, first uint32) (int, error) {
	le := binary.LittleEndian
	table, err := im.at(bucketAddr, 4*uint64(buckets))
	if err != nil {
		return 0, err
	}
	last := uint32(0)
	for i := range buckets {
		last = max(last, le.Uint32(table[4*i:]))
	}
	if last < first {
		return boundedCount(first)
	}
	for ; last < maxSymbols; last++ {
		c, err := im.at(bucketAddr+4*uint64(buckets)+4*uint64(last-first), 4)
		if err != nil {
			return 0, err
		}
		if c[0]&1 == 1 {
			return boundedCount(last + 1)
		}
	}
	return 0, fmt.Errorf("more than %d dynamic symbols", maxSymbols)
}

func boundedCount(n uint32) (int, error) {
	if n > maxSymbols {
		return 0, fmt.Errorf("%d dynamic symbols, at most %d allowed", n, maxSymbols)
	}
	return int(n), nil
}
