package ext4

import (
	"context"
	"fmt"
	"io"
)

const streamBuffer = 1 << 20

// stream writes blocks upwards through one buffer, and by itself what lies
// between: zeros and the copies of the superblock.
type stream struct {
	ctx      context.Context
	w        io.Writer
	buf      []byte
	fill     int
	zero     []byte
	block    uint64 // the next block to be written
	reserved []span
	backup   func(at span) []byte
}

func newStream(ctx context.Context, w io.Writer, reserved []span, backup func(span) []byte) *stream {
	return &stream{ctx: ctx, w: w, buf: make([]byte, streamBuffer), zero: make([]byte, streamBuffer),
		reserved: reserved, backup: backup}
}

func (s *stream) flush() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.fill == 0 {
		return nil
	}
	n, err := s.w.Write(s.buf[:s.fill])
	if err == nil && n != s.fill {
		err = io.ErrShortWrite
	}
	s.fill = 0
	return err
}

// room returns free space in the buffer, at least one block.
func (s *stream) room() ([]byte, error) {
	if s.fill == len(s.buf) {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	return s.buf[s.fill:], nil
}

// write appends whole blocks.
func (s *stream) write(b []byte) error {
	s.block += uint64(len(b) / blockSize)
	for len(b) > 0 {
		room, err := s.room()
		if err != nil {
			return err
		}
		n := copy(room, b)
		s.fill += n
		b = b[n:]
	}
	return nil
}

// copyFrom appends n bytes of r, padded with zeros to whole blocks.
func (s *stream) copyFrom(r io.Reader, n int64) error {
	s.block += uint64(blocksFor(n))
	for n > 0 {
		room, err := s.room()
		if err != nil {
			return err
		}
		room = room[:min(int64(len(room)), n)]
		if _, err := io.ReadFull(r, room); err != nil {
			return fmt.Errorf("reading content: %w", err)
		}
		s.fill += len(room)
		n -= int64(len(room))
	}
	pad := -s.fill & (blockSize - 1)
	clear(s.buf[s.fill : s.fill+pad])
	s.fill += pad
	return nil
}

// zeros appends n zero blocks.
func (s *stream) zeros(n uint64) error {
	s.block += n
	for left := n * blockSize; left > 0; {
		if s.fill == 0 && left >= uint64(len(s.zero)) {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			if k, err := s.w.Write(s.zero); err != nil {
				return err
			} else if k != len(s.zero) {
				return io.ErrShortWrite
			}
			left -= uint64(len(s.zero))
			continue
		}
		room, err := s.room()
		if err != nil {
			return err
		}
		room = room[:min(uint64(len(room)), left)]
		clear(room)
		s.fill += len(room)
		left -= uint64(len(room))
	}
	return nil
}

// seek goes on at a block, which must not lie behind.
func (s *stream) seek(block uint64) error {
	for len(s.reserved) > 0 && s.reserved[0].start < block {
		r := s.reserved[0]
		s.reserved = s.reserved[1:]
		if err := s.seekPlain(r.start); err != nil {
			return err
		}
		if err := s.write(s.backup(r)); err != nil {
			return err
		}
	}
	return s.seekPlain(block)
}

func (s *stream) seekPlain(block uint64) error {
	if block < s.block {
		return fmt.Errorf("layout goes back from block %d to %d (a bug in this package)", s.block, block)
	}
	return s.zeros(block - s.block)
}
