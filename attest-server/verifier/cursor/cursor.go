// Package cursor reads numbers and slices out of bytes that somebody else wrote,
// never beyond their end, and allocates nothing.
package cursor

import (
	"encoding/binary"
	"fmt"
)

// Cursor stands in bytes. After the first error everything it reads is empty.
type Cursor struct {
	Err   error // the first; whoever finds a value wrong may set it
	bytes []byte
	at    int
	order binary.ByteOrder
}

// New begins at the start of b, whose numbers are little endian.
func New(b []byte) *Cursor { return &Cursor{bytes: b, order: binary.LittleEndian} }

// BigEndian is New for big endian numbers.
func BigEndian(b []byte) *Cursor { return &Cursor{bytes: b, order: binary.BigEndian} }

// Take reads n bytes: a slice of what it reads from, without room behind.
func (c *Cursor) Take(n int) []byte {
	if c.Err == nil && (n < 0 || n > len(c.bytes)-c.at) {
		c.Err = fmt.Errorf("%d bytes missing at offset %d", n-(len(c.bytes)-c.at), c.at)
	}
	if c.Err != nil {
		return nil
	}
	c.at += n
	return c.bytes[c.at-n : c.at : c.at]
}

// U16 reads a number of two bytes.
func (c *Cursor) U16() uint16 {
	if b := c.Take(2); b != nil {
		return c.order.Uint16(b)
	}
	return 0
}

// U32 reads a number of four bytes.
func (c *Cursor) U32() uint32 {
	if b := c.Take(4); b != nil {
		return c.order.Uint32(b)
	}
	return 0
}

// Offset is how much was read.
func (c *Cursor) Offset() int { return c.at }

// Rest is what was not read yet.
func (c *Cursor) Rest() []byte { return c.bytes[c.at:] }
