// Package gunzip decompresses gzip at half the CPU time or less of what Go
// otherwise has: from gzip layers, inflating is the largest part of a build. It
// decodes into whole chunks instead of answering reads, keeps 64 bits of input in
// a register, and knows most symbols from one look at a table. It takes and
// refuses what compress/gzip does (FuzzReader).
package gunzip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ErrFormat is wrapped when the input is not gzip (RFC 1952), or damaged.
var ErrFormat = errors.New("invalid gzip data")

// Reader is a decompressed stream. It decodes in a goroutine of its own, some
// chunks ahead, until Close.
type Reader struct {
	chunks chan chunk
	free   chan []byte
	stop   chan struct{}
	cur    chunk
	left   []byte // of cur
	err    error  // also after Close
	closed bool
}

// chunk is a piece of output, or the error that ends it.
type chunk struct {
	buf     []byte
	content []byte
	err     error
}

const ahead = 2 // chunks that wait for their reader

// NewReader decompresses all members of r, one after the other, as gunzip does.
// It reads r beyond the end of the last member, to see that nothing follows.
func NewReader(r io.Reader) *Reader {
	z := &Reader{chunks: make(chan chunk, ahead), free: make(chan []byte, ahead+2), stop: make(chan struct{})}
	for range ahead + 2 {
		z.free <- nil
	}
	go z.run(r)
	return z
}

// errStopped says that nobody reads on.
var errStopped = errors.New("closed")

func (z *Reader) run(r io.Reader) {
	defer close(z.chunks)
	m := &member{z: z}
	m.d = &decoder{input: newInput(r), full: m.hand, literalSymbols: literalSymbols(), distanceSymbols: distanceSymbols()}
	err := m.hand() // the first buffer
	for first := true; err == nil; first = false {
		err = m.decode(first)
	}
	if err == errStopped {
		return
	}
	if err != io.EOF && m.d.err != err {
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	z.send(chunk{err: err})
}

func (z *Reader) send(c chunk) error {
	select {
	case z.chunks <- c:
		return nil
	case <-z.stop:
		return errStopped
	}
}

// Read implements io.Reader.
func (z *Reader) Read(p []byte) (int, error) {
	for len(z.left) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		if z.cur.buf != nil {
			z.free <- z.cur.buf
		}
		var ok bool
		if z.cur, ok = <-z.chunks; !ok {
			z.cur.err = errStopped
		}
		z.left, z.err = z.cur.content, z.cur.err
	}
	n := copy(p, z.left)
	z.left = z.left[n:]
	return n, nil
}

// Close stops decoding, and waits until the input is no longer read.
func (z *Reader) Close() error {
	if z.closed {
		return nil
	}
	z.closed = true
	z.left, z.err = nil, errStopped
	close(z.stop)
	for range z.chunks { // ends when run does
	}
	return nil
}

// member decodes one gzip member after the other.
type member struct {
	z    *Reader
	d    *decoder
	sum  uint32
	size uint32 // modulo 2^32
}

// hand gives the chunk to the reader, and starts the next behind a copy of the
// window: another's memory is not looked at.
func (m *member) hand() error {
	d := m.d
	var buf []byte
	select {
	case buf = <-m.z.free:
	case <-m.z.stop:
		return errStopped
	}
	if buf == nil {
		buf = make([]byte, windowBytes+chunkBytes+slack)
	}
	done := d.out[d.start:d.at]
	window := copy(buf, d.out[max(0, d.at-windowBytes):d.at])
	old := d.out
	d.out, d.start, d.at = buf, window, window
	if len(done) == 0 {
		if old != nil {
			m.z.free <- old
		}
		return nil
	}
	m.sum = crc32.Update(m.sum, crc32.IEEETable, done)
	m.size += uint32(len(done))
	return m.z.send(chunk{buf: old, content: done})
}

// decode decodes a member, or returns io.EOF if there is no other.
func (m *member) decode(first bool) error {
	if err := m.header(first); err != nil {
		return err
	}
	// A match cannot reach into the member before.
	m.d.start, m.d.at, m.sum, m.size = 0, 0, 0, 0
	if err := m.d.inflate(); err != nil {
		return err
	}
	if err := m.hand(); err != nil {
		return err
	}
	m.d.align()
	var trailer [8]byte
	if err := m.d.read(trailer[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(trailer[:]) != m.sum || binary.LittleEndian.Uint32(trailer[4:]) != m.size {
		return errors.New("wrong checksum")
	}
	return nil
}

// The flags of a header.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

// header passes over a member's header (RFC 1952, section 2.3).
func (m *member) header(first bool) error {
	h := &headerReader{d: m.d}
	if m.d.pos >= m.d.end {
		if err := m.d.more(); err != nil {
			return err
		}
		if m.d.pos >= m.d.end && !first {
			return io.EOF
		}
	}
	b := h.take(10)
	if h.err == nil && (b[0] != 0x1f || b[1] != 0x8b || b[2] != 8) {
		return errors.New("not a gzip header")
	}
	if b[3]&flagExtra != 0 {
		n := h.take(2)
		for left := int(binary.LittleEndian.Uint16(n[:])); left > 0 && h.err == nil; left -= min(left, len(n)) {
			h.take(min(left, len(n)))
		}
	}
	for _, f := range []byte{flagName, flagComment} {
		if b[3]&f != 0 {
			for end := false; !end && h.err == nil; {
				c := h.take(1)
				end = c[0] == 0
			}
		}
	}
	if b[3]&flagHeaderCRC != 0 {
		want := uint16(h.sum)
		sum := h.take(2)
		if h.err == nil && binary.LittleEndian.Uint16(sum[:]) != want {
			return errors.New("wrong checksum of a header")
		}
	}
	return h.err
}

// headerReader reads fields and sums them up.
type headerReader struct {
	d   *decoder
	sum uint32
	err error
}

func (h *headerReader) take(n int) (b [10]byte) {
	if h.err == nil {
		h.err = h.d.read(b[:n])
		h.sum = crc32.Update(h.sum, crc32.IEEETable, b[:n])
	}
	return b
}
