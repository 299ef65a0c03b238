package rpmdb

import (
	"errors"
	"fmt"
	"io"
)

var errDamaged = errors.New("damaged RPM database")

func damaged(format string, a ...any) error {
	return fmt.Errorf("%w: %w", errDamaged, fmt.Errorf(format, a...))
}

// maxHeader bounds one package's header: large ones, with many files, have a
// few MiB.
const maxHeader = 64 << 20

// file reads with bounds.
type file struct {
	r    io.ReaderAt
	size int64
	left int64 // bytes of headers that may still be read: parts must not overlap much
}

func (f *file) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > f.size || n > f.size-off {
		return nil, damaged("%d bytes at %d, the file has %d", n, off, f.size)
	}
	b := make([]byte, n)
	if _, err := f.r.ReadAt(b, off); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// take accounts for a header of n bytes.
func (f *file) take(n int64) error {
	if n > maxHeader {
		return damaged("header of %d bytes, at most %d allowed", n, maxHeader)
	}
	if f.left -= n; f.left < 0 {
		return damaged("more headers than the file can hold")
	}
	return nil
}
