package btrfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// stream writes upwards through one buffer, which always holds whole sectors.
type stream struct {
	ctx context.Context
	w   io.Writer
	buf []byte
	at  uint64 // where on the disk the next byte goes
}

func newStream(ctx context.Context, w io.Writer) *stream {
	return &stream{ctx: ctx, w: w, buf: make([]byte, 0, 1<<20)}
}

func (s *stream) flush() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	n, err := s.w.Write(s.buf)
	if err == nil && n != len(s.buf) {
		err = io.ErrShortWrite
	}
	s.buf = s.buf[:0]
	return err
}

// room returns free space in the buffer, at least one sector and at most n
// bytes, which count as written.
func (s *stream) room(n uint64) ([]byte, error) {
	if len(s.buf) == cap(s.buf) {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	had := len(s.buf)
	s.buf = s.buf[:had+int(min(n, uint64(cap(s.buf)-had)))]
	s.at += uint64(len(s.buf) - had)
	return s.buf[had:], nil
}

// write appends whole sectors.
func (s *stream) write(b []byte) error {
	for len(b) > 0 {
		room, err := s.room(uint64(len(b)))
		if err != nil {
			return err
		}
		b = b[copy(room, b):]
	}
	return nil
}

// zeros goes on until a place on the disk.
func (s *stream) zeros(until uint64) error {
	if until < s.at {
		return fmt.Errorf("layout goes back from byte %d to %d (a bug in this package)", s.at, until)
	}
	for s.at < until {
		room, err := s.room(until - s.at)
		if err != nil {
			return err
		}
		clear(room)
	}
	return nil
}

// data appends n bytes of r, padded with zeros to length, and hands out the
// checksums of the sectors as they come.
func (s *stream) data(r io.Reader, n, length uint64, sums func(at uint64, sums []byte) error) error {
	var out []byte
	for length > 0 {
		at := s.at
		room, err := s.room(length)
		if err != nil {
			return err
		}
		k := min(n, uint64(len(room)))
		if _, err := io.ReadFull(r, room[:k]); err != nil {
			return fmt.Errorf("reading content: %w", unexpected(err))
		}
		clear(room[k:])
		n, length = n-k, length-uint64(len(room))
		out = out[:0]
		for ; len(room) > 0; room = room[sectorSize:] {
			out = binary.LittleEndian.AppendUint32(out, checksum(room[:sectorSize]))
		}
		if err := sums(at, out); err != nil {
			return err
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
