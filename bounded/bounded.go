// Package bounded reads what somebody else wrote: all of it, or nothing where
// it is longer than the reader can accept. Nothing is cut silently.
package bounded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrTooLarge reports content longer than the limit.
var ErrTooLarge = errors.New("too large")

// Read reads r to its end. More than limit bytes are an ErrTooLarge that names
// name; what was read by then is overwritten, as it may be secret.
func Read(r io.Reader, name string, limit int64) ([]byte, error) {
	return read(r, name, limit, 0)
}

// read makes room for size bytes at once, which are no more than limit.
func read(r io.Reader, name string, limit, size int64) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	_, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err == nil && int64(b.Len()) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	if err != nil {
		clear(b.Bytes())
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// File reads the file path, of any kind, of at most limit bytes.
func File(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Read(f, path, limit)
}

// Regular reads the regular file path of at most limit bytes. It looks before
// it opens, because to open a named pipe waits for its writer.
func Regular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = regular(info, path, limit)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f, path, limit, info.Size())
}

// RegularFS is Regular for a file of fsys.
func RegularFS(fsys fs.FS, name string, limit int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err == nil {
		err = regular(info, name, limit)
	}
	if err != nil {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f, name, limit, info.Size())
}

func regular(info fs.FileInfo, name string, limit int64) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("reading %s: expected a regular file, got %s", name, info.Mode().Type())
	case info.Size() > limit:
		return fmt.Errorf("reading %s: %w: %d bytes, at most %d", name, ErrTooLarge, info.Size(), limit)
	}
	return nil
}
