package verifier

import (
	"encoding/binary"
	"fmt"
)

// cursor reads from b; after the first error everything it reads is empty.
type cursor struct {
	b     []byte
	order binary.ByteOrder // nil: little endian
	off   int
	err   error
}

func (c *cursor) take(n int) []byte {
	if c.err == nil && (n < 0 || n > len(c.b)-c.off) {
		c.err = fmt.Errorf("%d bytes missing at offset %d", n-(len(c.b)-c.off), c.off)
	}
	if c.err != nil {
		return nil
	}
	c.off += n
	return c.b[c.off-n : c.off : c.off]
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return c.endian().Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return c.endian().Uint32(b)
	}
	return 0
}

func (c *cursor) endian() binary.ByteOrder {
	if c.order == nil {
		return binary.LittleEndian
	}
	return c.order
}

func (c *cursor) rest() []byte { return c.b[c.off:] }
