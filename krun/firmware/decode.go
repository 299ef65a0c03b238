package firmware

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"
)

// The functions of libkrunfw store constants through their pointer arguments
// and return an address. This file understands them by walking their few
// instructions with symbolic values, as gcc and clang emit them at -O0 to -O3;
// whatever else it meets is refused, and nothing is executed.

const (
	maxCodeBytes    = 512
	maxInstructions = 48
)

type valueKind int

const (
	unknown  valueKind = iota
	constant           // n is the number or address
	argument           // n is the index of a pointer argument
	stack              // n is the offset from the stack pointer at entry
)

type value struct {
	kind valueKind
	n    uint64
}

// call is what a function was found to do.
type call struct {
	result uint64
	stored map[uint64]uint64 // argument index -> 64-bit number stored
}

type machine struct {
	im    *image
	regs  map[x86asm.Reg]value
	frame map[uint64]value // stack slots of 8 bytes by offset
	out   call
}

// evaluate decodes the exported function name. errNoSymbol if it is missing.
func (im *image) evaluate(name string) (*call, error) {
	code, pc, err := im.function(name, maxCodeBytes)
	if err != nil {
		return nil, err
	}
	m := &machine{im: im, frame: map[uint64]value{}, out: call{stored: map[uint64]uint64{}}}
	m.regs = map[x86asm.Reg]value{
		x86asm.RDI: {argument, 0}, x86asm.RSI: {argument, 1}, x86asm.RDX: {argument, 2}, x86asm.RSP: {stack, 0},
	}
	for range maxInstructions {
		if bytes.HasPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) { // endbr64
			code, pc = code[4:], pc+4
			continue
		}
		inst, err := x86asm.Decode(code, 64)
		if err != nil {
			return nil, fmt.Errorf("function %s at %#x: %w", name, pc, err)
		}
		code, pc = code[inst.Len:], pc+uint64(inst.Len)
		done, err := m.step(inst, pc)
		if err != nil {
			return nil, fmt.Errorf("function %s: instruction %q is not understood: %w", name, inst, err)
		}
		if done {
			return &m.out, nil
		}
	}
	return nil, fmt.Errorf("function %s: no return within %d instructions", name, maxInstructions)
}

var errNotUnderstood = errors.New("expected only constants stored through arguments and an address returned")

// step executes one instruction; next is the address after it.
func (m *machine) step(inst x86asm.Inst, next uint64) (done bool, err error) {
	for _, p := range inst.Prefix {
		// Segment overrides and LOCK would change what the operands mean.
		if q := p &^ (x86asm.PrefixImplicit | x86asm.PrefixIgnored); q != 0 && !q.IsREX() && q != x86asm.PrefixDataSize {
			if inst.Op != x86asm.NOP && inst.Op != x86asm.RET {
				return false, errNotUnderstood
			}
		}
	}
	switch inst.Op {
	case x86asm.NOP:
		return false, nil
	case x86asm.MOV:
		return false, m.move(inst, next)
	case x86asm.LEA:
		return false, m.lea(inst, next)
	case x86asm.XOR, x86asm.SUB:
		return false, m.clearOrReserve(inst)
	case x86asm.PUSH, x86asm.POP, x86asm.LEAVE:
		return false, m.stackOp(inst)
	case x86asm.RET:
		v := m.regs[x86asm.RAX]
		if v.kind != constant {
			return false, errNotUnderstood
		}
		m.out.result = v.n
		return true, nil
	}
	return false, errNotUnderstood
}

// set writes a register; by its 32-bit name it clears the upper half.
func (m *machine) set(r x86asm.Reg, v value) error {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		m.regs[r] = v
		return nil
	case r >= x86asm.EAX && r <= x86asm.R15L:
		if v.kind == constant {
			v.n &= 0xffffffff
		} else {
			v = value{} // half a pointer is of no use
		}
		m.regs[r-x86asm.EAX+x86asm.RAX] = v
		return nil
	}
	return errNotUnderstood
}

func (m *machine) get(r x86asm.Reg) (value, error) {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return m.regs[r], nil
	case r >= x86asm.EAX && r <= x86asm.R15L:
		v := m.regs[r-x86asm.EAX+x86asm.RAX]
		if v.kind != constant {
			return value{}, nil
		}
		return value{constant, v.n & 0xffffffff}, nil
	}
	return value{}, errNotUnderstood
}

// address resolves a memory operand without index.
func (m *machine) address(mem x86asm.Mem, next uint64) (value, error) {
	if mem.Index != 0 || mem.Segment != 0 {
		return value{}, errNotUnderstood
	}
	if mem.Base == x86asm.RIP {
		return value{constant, next + uint64(mem.Disp)}, nil
	}
	if mem.Base < x86asm.RAX || mem.Base > x86asm.R15 {
		return value{}, errNotUnderstood
	}
	v := m.regs[mem.Base]
	if v.kind == argument && mem.Disp != 0 {
		return value{}, errNotUnderstood
	}
	if v.kind != argument {
		v.n += uint64(mem.Disp)
	}
	return v, nil
}

func (m *machine) lea(inst x86asm.Inst, next uint64) error {
	dst, ok := inst.Args[0].(x86asm.Reg)
	mem, ok2 := inst.Args[1].(x86asm.Mem)
	if !ok || !ok2 {
		return errNotUnderstood
	}
	v, err := m.address(mem, next)
	if err != nil {
		return err
	}
	return m.set(dst, v)
}

func (m *machine) move(inst x86asm.Inst, next uint64) error {
	v, err := m.source(inst, next)
	if err != nil {
		return err
	}
	switch dst := inst.Args[0].(type) {
	case x86asm.Reg:
		return m.set(dst, v)
	case x86asm.Mem:
		return m.store(dst, v, inst, next)
	}
	return errNotUnderstood
}

func (m *machine) source(inst x86asm.Inst, next uint64) (value, error) {
	switch src := inst.Args[1].(type) {
	case x86asm.Imm:
		return value{constant, uint64(src)}, nil
	case x86asm.Reg:
		return m.get(src)
	case x86asm.Mem:
		return m.loadWord(src, inst, next)
	}
	return value{}, errNotUnderstood
}

// loadWord reads 8 bytes: a stack slot, or a pointer from the global offset
// table that relocation will have set.
func (m *machine) loadWord(mem x86asm.Mem, inst x86asm.Inst, next uint64) (value, error) {
	from, err := m.address(mem, next)
	if err != nil || inst.MemBytes != 8 {
		return value{}, errNotUnderstood
	}
	switch from.kind {
	case stack:
		return m.frame[from.n], nil
	case constant:
		if p, ok := m.im.pointers[from.n]; ok {
			return value{constant, p}, nil
		}
		// A constant the compiler put into read-only data.
		for _, s := range m.im.segments {
			if s.flags&elf.PF_W == 0 && from.n >= s.vaddr && from.n-s.vaddr < s.filesz {
				b, err := m.im.payload(from.n, 8)
				if err != nil {
					return value{}, err
				}
				return value{constant, binary.LittleEndian.Uint64(b)}, nil
			}
		}
	}
	return value{}, errNotUnderstood
}

func (m *machine) store(mem x86asm.Mem, v value, inst x86asm.Inst, next uint64) error {
	to, err := m.address(mem, next)
	if err != nil || inst.MemBytes != 8 {
		return errNotUnderstood
	}
	switch {
	case to.kind == stack:
		m.frame[to.n] = v
	case to.kind == argument && v.kind == constant:
		if _, twice := m.out.stored[to.n]; twice {
			return errors.New("an argument is stored to twice")
		}
		m.out.stored[to.n] = v.n
	default:
		return errNotUnderstood
	}
	return nil
}

// clearOrReserve handles xor reg, reg and sub rsp, imm.
func (m *machine) clearOrReserve(inst x86asm.Inst) error {
	dst, ok := inst.Args[0].(x86asm.Reg)
	if !ok {
		return errNotUnderstood
	}
	if src, same := inst.Args[1].(x86asm.Reg); same && src == dst {
		return m.set(dst, value{kind: constant})
	}
	n, ok := inst.Args[1].(x86asm.Imm)
	if !ok || inst.Op != x86asm.SUB || dst != x86asm.RSP {
		return errNotUnderstood
	}
	m.regs[x86asm.RSP] = value{stack, m.regs[x86asm.RSP].n - uint64(n)}
	return nil
}

func (m *machine) stackOp(inst x86asm.Inst) error {
	if inst.Op == x86asm.LEAVE {
		m.regs[x86asm.RSP] = m.regs[x86asm.RBP]
		return m.pop(x86asm.RBP)
	}
	r, ok := inst.Args[0].(x86asm.Reg)
	if !ok || r < x86asm.RAX || r > x86asm.R15 || r == x86asm.RSP {
		return errNotUnderstood
	}
	if inst.Op == x86asm.POP {
		return m.pop(r)
	}
	sp := m.regs[x86asm.RSP].n - 8
	m.regs[x86asm.RSP] = value{stack, sp}
	m.frame[sp] = m.regs[r]
	return nil
}

func (m *machine) pop(r x86asm.Reg) error {
	sp := m.regs[x86asm.RSP]
	if sp.kind != stack {
		return errNotUnderstood
	}
	m.regs[r] = m.frame[sp.n]
	m.regs[x86asm.RSP] = value{stack, sp.n + 8}
	return nil
}
