package firmware

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// readRelocations notes which words the loader will rewrite, and to what
// where that follows from the file alone.
func (im *image) readRelocations() error {
	im.pointers = map[uint64]uint64{}
	if im.dynamic[elf.DT_RELSZ] != 0 {
		return errors.New("relocations in DT_REL form are not supported")
	}
	if err := im.readPacked(); err != nil {
		return fmt.Errorf("reading packed relocations: %w", err)
	}
	for _, t := range []struct{ addr, size elf.DynTag }{
		{elf.DT_RELA, elf.DT_RELASZ}, {elf.DT_JMPREL, elf.DT_PLTRELSZ},
	} {
		size := im.dynamic[t.size]
		if size == 0 {
			continue
		}
		if size%relaBytes != 0 || size/relaBytes > maxRelocs {
			return fmt.Errorf("%d bytes of relocations, expected at most %d entries of %d", size, maxRelocs, relaBytes)
		}
		table, err := im.at(im.dynamic[t.addr], size)
		if err != nil {
			return fmt.Errorf("reading relocations: %w", err)
		}
		if err := im.addRelocations(table); err != nil {
			return err
		}
	}
	return nil
}

func (im *image) addRelocations(table []byte) error {
	le := binary.LittleEndian
	for ; len(table) > 0; table = table[relaBytes:] {
		where, info, addend := le.Uint64(table), le.Uint64(table[8:]), le.Uint64(table[16:])
		im.patched = append(im.patched, where)
		kind, index := elf.R_X86_64(info&0xffffffff), info>>32
		if index >= uint64(len(im.symbols)) {
			return fmt.Errorf("relocation against symbol %d of %d", index, len(im.symbols))
		}
		sym := im.symbols[index]
		switch kind {
		case elf.R_X86_64_NONE:
		case elf.R_X86_64_RELATIVE:
			im.pointers[where] = addend
		case elf.R_X86_64_GLOB_DAT, elf.R_X86_64_64, elf.R_X86_64_JMP_SLOT:
			if sym.shndx != uint16(elf.SHN_UNDEF) {
				im.pointers[where] = sym.value + addend
			}
		default:
			return fmt.Errorf("relocation of kind %v is not supported", kind)
		}
	}
	return nil
}

// payload returns n bytes at vaddr that the loader leaves alone.
func (im *image) payload(vaddr, n uint64) ([]byte, error) {
	b, err := im.at(vaddr, n)
	if err != nil {
		return nil, err
	}
	for _, p := range im.patched {
		if p+8 > vaddr && p < vaddr+n || p+8 < p {
			return nil, fmt.Errorf("relocation at %#x changes the payload when loaded", p)
		}
	}
	return b, nil
}

// function returns the code of an exported function, bounded by limit bytes.
func (im *image) function(name string, limit uint64) ([]byte, uint64, error) {
	var found *symbol
	for i, s := range im.symbols {
		if s.name != name || s.shndx == uint16(elf.SHN_UNDEF) {
			continue
		}
		if found != nil {
			return nil, 0, fmt.Errorf("function %s is exported twice", name)
		}
		found = &im.symbols[i]
	}
	if found == nil {
		return nil, 0, fmt.Errorf("function %s: %w", name, errNoSymbol)
	}
	if found.kind != elf.STT_FUNC && found.kind != elf.STT_NOTYPE {
		return nil, 0, fmt.Errorf("symbol %s is %v, expected a function", name, found.kind)
	}
	code, err := im.tail(found.value, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("function %s: %w", name, err)
	}
	return code, found.value, nil
}

var errNoSymbol = errors.New("not exported")

// Packed relative relocations (System V gABI, "Relative Relocation Table"),
// which debug/elf has no names for.
const (
	dtRELRSZ elf.DynTag = 35
	dtRELR   elf.DynTag = 36
)

// readPacked decodes DT_RELR: an even word is an address to relocate, an odd
// one a bitmap of the 63 words behind the last. The addend is in place.
func (im *image) readPacked() error {
	size := im.dynamic[dtRELRSZ]
	if size == 0 {
		return nil
	}
	if size%8 != 0 || size > maxRelocs*8 {
		return fmt.Errorf("%d bytes, expected at most %d words of 8", size, maxRelocs)
	}
	table, err := im.at(im.dynamic[dtRELR], size)
	if err != nil {
		return err
	}
	var next uint64
	for ; len(table) > 0; table = table[8:] {
		word := binary.LittleEndian.Uint64(table)
		if word&1 == 0 {
			if err := im.relative(word); err != nil {
				return err
			}
			next = word + 8
			continue
		}
		for i := range uint64(63) {
			if word>>(i+1)&1 == 1 {
				if err := im.relative(next + 8*i); err != nil {
					return err
				}
			}
		}
		next += 63 * 8
	}
	return nil
}

func (im *image) relative(where uint64) error {
	if len(im.patched) == maxRelocs {
		return fmt.Errorf("more than %d relocations", maxRelocs)
	}
	b, err := im.at(where, 8)
	if err != nil {
		return err
	}
	im.patched = append(im.patched, where)
	im.pointers[where] = binary.LittleEndian.Uint64(b)
	return nil
}
