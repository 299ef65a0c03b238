package rootfstest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Generated is a layer made on the fly, so that nothing big is held or stored:
// Dirs directories of Files files of Size bytes each.
type Generated struct {
	Dirs, Files int
	Size        int64
}

// Open implements rootfs.Layer.
func (g Generated) Open(context.Context) (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(g.Write(w)) }()
	return r, nil
}

// pattern is what is in the files.
var pattern = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

// Write writes the layer, a tar stream.
func (g Generated) Write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for d := range g.Dirs {
		for f := range g.Files {
			h := &tar.Header{Name: fmt.Sprintf("%d/%d", d, f), Typeflag: tar.TypeReg, Mode: 0o644, Size: g.Size, Format: tar.FormatPAX}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			for left := g.Size; left > 0; {
				n, err := tw.Write(pattern[:min(left, int64(len(pattern)))])
				if err != nil {
					return err
				}
				left -= int64(n)
			}
		}
	}
	return tw.Close()
}

// Layout is a file system that has been planned.
type Layout interface {
	SizeBytes() int64
	WriteTo(ctx context.Context, w io.Writer) error
}

// Image writes a file system to a file with holes for zeros, and returns its
// path.
func Image(t testing.TB, l Layout) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := &sparseFile{f: f}
	if err := l.WriteTo(context.Background(), w); err != nil {
		t.Fatal(err)
	}
	if w.n != l.SizeBytes() {
		t.Fatalf("wrote %d bytes, planned %d", w.n, l.SizeBytes())
	}
	if err := f.Truncate(w.n); err != nil {
		t.Fatal(err)
	}
	return path
}

// sparseFile leaves zeros out, so that big images cost tests nothing.
type sparseFile struct {
	f *os.File
	n int64
}

const blockSize = 4096

var zeros [blockSize]byte

func (s *sparseFile) Write(p []byte) (int, error) {
	for off := 0; off < len(p); {
		k := min(blockSize, len(p)-off)
		if !bytes.Equal(p[off:off+k], zeros[:k]) {
			if _, err := s.f.WriteAt(p[off:off+k], s.n+int64(off)); err != nil {
				return 0, err
			}
		}
		off += k
	}
	s.n += int64(len(p))
	return len(p), nil
}

// FullDisk is a writer that fails after Left bytes, with ErrFull.
type FullDisk struct{ Left int }

// ErrFull is what a FullDisk says.
var ErrFull = errors.New("no space left")

func (f *FullDisk) Write(p []byte) (int, error) {
	if f.Left -= len(p); f.Left < 0 {
		return 0, ErrFull
	}
	return len(p), nil
}
