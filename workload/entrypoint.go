package workload

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// stubMessage is what a workload image says when an ordinary runtime runs it.
const stubMessage = "ccrun: this is an encrypted workload: it runs under the OCI runtime \"krun\", not under this one.\n" +
	"ccrun: hint: podman run --runtime krun IMAGE, or ccrun run IMAGE\n"

// stubStatus is podman-run(1)'s status for "the engine itself failed".
const stubStatus = 125

const (
	stubBase   = 0x400000
	stubHeader = 64 + 56 // ELF header and one program header
)

// stub is the image's /entrypoint: an ELF of one segment that is little more
// than write(2, message) and exit_group(125). Assembled here, because a Go
// binary would be a megabyte in every image, and it runs on nothing.
func stub() []byte {
	code := stubCode()
	size := uint64(stubHeader + len(code) + len(stubMessage))
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: stubBase + stubHeader, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	h.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: stubBase, Paddr: stubBase, Filesz: size, Memsz: size, Align: 4096,
	}
	_ = binary.Write(&b, binary.LittleEndian, h) // bytes.Buffer does not fail
	_ = binary.Write(&b, binary.LittleEndian, p)
	b.Write(code)
	b.WriteString(stubMessage)
	return b.Bytes()
}

// stubCode is x86-64 machine code. The message follows it directly.
func stubCode() []byte {
	const length = 36
	le := binary.LittleEndian
	c := make([]byte, 0, length)
	c = append(c, 0xb8, 1, 0, 0, 0) // mov eax, SYS_write
	c = append(c, 0xbf, 2, 0, 0, 0) // mov edi, 2
	c = append(c, 0xbe)             // mov esi, message
	c = le.AppendUint32(c, stubBase+stubHeader+length)
	c = append(c, 0xba) // mov edx, its length
	c = le.AppendUint32(c, uint32(len(stubMessage)))
	c = append(c, 0x0f, 0x05)                // syscall
	c = append(c, 0xb8, 231, 0, 0, 0)        // mov eax, SYS_exit_group
	c = append(c, 0xbf, stubStatus, 0, 0, 0) // mov edi, 125
	return append(c, 0x0f, 0x05, 0x0f, 0x0b) // syscall; ud2
}
