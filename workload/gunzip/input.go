package gunzip

import (
	"encoding/binary"
	"io"
)

const inBytes = 64 << 10

// input gives bits, the lowest of each byte first. Those who take many keep
// bits, n and pos in registers.
type input struct {
	src  io.Reader
	in   []byte // with 16 bytes of room behind end
	pos  int
	end  int
	err  error // of src
	bits uint64
	n    uint // how many of bits are counted as read from in
}

func newInput(src io.Reader) input { return input{src: src, in: make([]byte, inBytes)} }

// more moves what is left of the input to the front and reads on. At the end of
// the input zeros follow; it fails once more was taken than there was.
func (d *input) more() error {
	if d.err == nil {
		counted := int(d.n >> 3) // align goes back to them
		d.end, d.pos = copy(d.in, d.in[d.pos-counted:d.end]), counted
	}
	for d.err == nil && d.end < d.pos+8 {
		var k int
		k, d.err = d.src.Read(d.in[d.end : len(d.in)-16])
		d.end += k
	}
	if d.err == nil {
		return nil
	}
	if d.err != io.EOF {
		return d.err
	}
	if d.pos-int(d.n>>3) > d.end {
		return io.ErrUnexpectedEOF
	}
	clear(d.in[d.end : d.end+16])
	return nil
}

// fill makes sure of 56 bits.
func (d *input) fill() error {
	if d.pos+8 > d.end {
		if err := d.more(); err != nil {
			return err
		}
	}
	d.bits |= binary.LittleEndian.Uint64(d.in[d.pos:]) << (d.n & 63)
	d.pos += int(63-d.n) >> 3
	d.n |= 56
	return nil
}

// take returns the next k bits, which fill has made sure of.
func (d *input) take(k uint) int {
	v := int(d.bits & (1<<k - 1))
	d.bits >>= k
	d.n -= k
	return v
}

// align gives back whole bytes that were read ahead, and drops the rest of one.
func (d *input) align() {
	d.pos -= int(d.n >> 3)
	d.bits, d.n = 0, 0
}

// read fills p from the input, which is at a whole byte.
func (d *input) read(p []byte) error {
	for len(p) > 0 {
		if d.pos >= d.end {
			if err := d.more(); err != nil {
				return err
			}
			if d.pos >= d.end {
				return io.ErrUnexpectedEOF
			}
		}
		k := copy(p, d.in[d.pos:d.end])
		d.pos += k
		p = p[k:]
	}
	return nil
}
