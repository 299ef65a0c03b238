package cursor

import (
	"encoding/binary"
	"fmt"
)

// cursor reads from b; after the first error everything it reads is empty.
type Cursor struct {
	B     []byte
	Order binary.ByteOrder // nil: little endian
	Off   int
	Err   error
}

func (c *Cursor) Take(n int) []byte {
	if c.Err == nil && (n < 0 || n > len(c.B)-c.Off) {
		c.Err = fmt.Errorf("%d bytes missing at offset %d", n-(len(c.B)-c.Off), c.Off)
	}
	if c.Err != nil {
		return nil
	}
	c.Off += n
	return c.B[c.Off-n : c.Off : c.Off]
}

func (c *Cursor) U16() uint16 {
	if b := c.Take(2); b != nil {
		return c.endian().Uint16(b)
	}
	return 0
}

func (c *Cursor) U32() uint32 {
	if b := c.Take(4); b != nil {
		return c.endian().Uint32(b)
	}
	return 0
}

func (c *Cursor) endian() binary.ByteOrder {
	if c.Order == nil {
		return binary.LittleEndian
	}
	return c.Order
}

func (c *Cursor) Rest() []byte { return c.B[c.Off:] }
