package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containers/image/v5/pkg/compression"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// Bounds of an image archive.
const (
	maxArchiveEntries = 1 << 16
	maxArchiveJSON    = 4 << 20
)

// tarIndex finds the files of an image archive without unpacking it. The
// libraries unpack archives, in the clear, into temporary files that a killed
// build would leave behind. A compressed archive goes into a spool.
type tarIndex struct {
	open  func() (io.ReadSeekCloser, error)
	close func() error
	files map[string]tarSection
}

// tarSection is where an entry's content is, or the name it links to.
type tarSection struct {
	offset, size int64
	link         string
}

func openTarIndex(ctx context.Context, name, tempDir string) (*tarIndex, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	x := &tarIndex{
		open:  func() (io.ReadSeekCloser, error) { return os.Open(name) },
		close: func() error { return nil },
		files: map[string]tarSection{},
	}
	err = errors.Join(x.spoolCompressed(ctx, f, tempDir), f.Close())
	if err == nil {
		err = x.scan(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading archive: %w", err), x.close())
	}
	return x, nil
}

func (x *tarIndex) spoolCompressed(ctx context.Context, f io.Reader, tempDir string) error {
	decompress, stream, err := compression.DetectCompression(&contextReader{ctx, f})
	if err != nil || decompress == nil {
		return err
	}
	s, err := scratch.NewSpool(tempDir)
	if err != nil {
		return err
	}
	x.open, x.close = func() (io.ReadSeekCloser, error) { return s.Reader(), nil }, s.Close
	plain, err := decompress(stream)
	if err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	defer plain.Close()
	w := s.Writer()
	if _, err := io.Copy(w, plain); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	return w.Close()
}

// scan relies on archive/tar reading no further than the header: where it
// stops is where the content starts.
func (x *tarIndex) scan(ctx context.Context) error {
	r, err := x.open()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d entries: %w", len(x.files), err)
		}
		if len(x.files) >= maxArchiveEntries {
			return fmt.Errorf("more than %d entries", maxArchiveEntries)
		}
		s := tarSection{size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			if s.offset, err = r.Seek(0, io.SeekCurrent); err != nil {
				return err
			}
		case tar.TypeSymlink: // docker save: a layer that occurs twice
			s.link = path.Join(path.Dir(h.Name), h.Linkname)
		case tar.TypeLink:
			s.link = h.Linkname
		default:
			continue
		}
		x.files[path.Clean(h.Name)] = s
	}
}

func (x *tarIndex) find(name string) (tarSection, error) {
	name = path.Clean(name)
	for range 2 { // a link, once
		s, ok := x.files[name]
		if !ok {
			break
		}
		if s.link == "" {
			return s, nil
		}
		name = path.Clean(s.link)
	}
	return tarSection{}, fmt.Errorf("%s: %w in the archive", name, os.ErrNotExist)
}

// file reads an entry from its start.
func (x *tarIndex) file(name string) (io.ReadCloser, int64, error) {
	s, err := x.find(name)
	if err != nil {
		return nil, 0, err
	}
	r, err := x.open()
	if err != nil {
		return nil, 0, err
	}
	if _, err := r.Seek(s.offset, io.SeekStart); err != nil {
		return nil, 0, errors.Join(err, r.Close())
	}
	return &blob.ReadCloser{Reader: io.LimitReader(r, s.size), Closer: r}, s.size, nil
}

// bytes reads a small entry.
func (x *tarIndex) bytes(name string) ([]byte, error) {
	r, _, err := x.file(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return bounded.Read(r, name+" in the archive", maxArchiveJSON)
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
