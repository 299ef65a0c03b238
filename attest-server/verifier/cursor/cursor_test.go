package cursor

import (
	"errors"
	"testing"
)

// TestCursor: whatever size is asked for, nothing beyond the end is read, and
// nothing at all after an error.
func TestCursor(t *testing.T) {
	b := []byte{1, 2, 3, 4, 5, 6, 7}
	for _, n := range []int{-1, -1 << 62, 8, 1<<62 - 1} {
		c := New(b)
		if got := c.Take(n); got != nil || c.Err == nil || c.U16() != 0 || c.Take(0) != nil || c.Offset() != 0 {
			t.Errorf("%d bytes of 7: got %v, %v", n, got, c.Err)
		}
	}
	c := New(b)
	if n, m := c.U16(), c.U32(); n != 0x0201 || m != 0x06050403 || c.Offset() != 6 || string(c.Rest()) != "\x07" || c.Err != nil {
		t.Errorf("got %x, %x, then %v", n, m, c.Rest())
	}
	if got := c.U16(); got != 0 || c.Err == nil {
		t.Errorf("a number of which half is there: %x", got)
	}
	if c = BigEndian(b); c.U16() != 0x0102 || c.U32() != 0x03040506 {
		t.Error("not big endian")
	}
	if got := New(b).Take(3); cap(got) != 3 {
		t.Errorf("room for %d bytes, expected 3: who appends would write into the rest", cap(got))
	}
	c.Err = errors.New("a value is wrong")
	if c.Take(1) != nil {
		t.Error("reads on after an error that the caller set")
	}
}
