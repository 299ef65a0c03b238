package rootfs

import (
	"context"
	"fmt"
	"io"
)

// seekWindow is read at a time: a header with what usually follows it.
const seekWindow = 4 << 10

// seekReader reads headers from a file and lets archive/tar skip contents. It
// bounds and cancels like boundedReader.
type seekReader struct {
	ctx   context.Context
	r     io.ReadSeeker
	buf   []byte // read ahead
	space [seekWindow]byte
	pos   int64 // of buf's first byte, from where reading started
	limit int64
}

func (s *seekReader) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if len(s.buf) == 0 {
		if len(p) >= seekWindow {
			n, err := s.r.Read(p)
			return n, s.advance(n, err)
		}
		n, err := s.r.Read(s.space[:])
		if s.buf = s.space[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, s.advance(n, nil)
}

func (s *seekReader) advance(n int, err error) error {
	if s.pos += int64(n); s.pos > s.limit {
		return exceeded("bytes of one layer's tar", s.limit, "more")
	}
	return err
}

// Seek implements io.Seeker as far as archive/tar needs it.
func (s *seekReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, fmt.Errorf("seeking %d from %d: only forward from here", offset, whence)
	}
	if have := int64(len(s.buf)); offset <= have {
		s.buf = s.buf[offset:]
	} else {
		if _, err := s.r.Seek(offset-have, io.SeekCurrent); err != nil {
			return 0, err
		}
		s.buf = nil
	}
	if offset > s.limit-s.pos {
		return 0, exceeded("bytes of one layer's tar", s.limit, "more")
	}
	s.pos += offset
	return s.pos, nil
}
