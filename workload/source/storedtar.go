package source

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"
	tarsplit "github.com/vbatts/tar-split/tar/storage"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// storedTree is a layer in local storage: its files, and beside them, in the
// tar-split format, all that was in the layer's tar stream but their contents.
type storedTree struct {
	split  string
	size   int64
	driver drivers.DiffGetterDriver
	id     string
}

// findTree returns nil if the layer cannot be read but by the store.
func findTree(store storage.Store, l *storage.Layer) *storedTree {
	driver, err := store.GraphDriver()
	if err != nil {
		return nil
	}
	getter, ok := driver.(drivers.DiffGetterDriver)
	if !ok || l.UncompressedSize <= 0 {
		return nil
	}
	t := &storedTree{
		split: filepath.Join(store.GraphRoot(), store.GraphDriverName()+"-layers", l.ID+".tar-split.gz"),
		size:  l.UncompressedSize, driver: getter, id: l.ID,
	}
	if there, err := scratch.Exists(t.split); err != nil || !there {
		return nil
	}
	return t
}

// open makes the layer's tar stream. Nothing is locked meanwhile: whoever
// removes the image, or changes files below the store, gets this build to fail,
// because the stream's digest is compared.
func (t *storedTree) open() (io.ReadCloser, error) {
	f, err := os.Open(t.split)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	files, err := openStoredFiles(t.driver, t.id)
	if err != nil {
		return nil, errors.Join(err, z.Close(), f.Close())
	}
	return &treeReader{size: t.size, entries: newSplitReader(z), files: files, closers: blob.Closers{files, z, f}}, nil
}

// treeReader is a tar stream put together. It seeks forward within a file's
// content, for a reader of headers; such a file is never opened, what follows
// in it reads as zeros.
type treeReader struct {
	size    int64
	entries *splitReader
	files   *storedFiles
	closers blob.Closers

	off     int64
	segment []byte        // left of it
	name    string        // of the file whose content comes
	left    int64         // of its content
	file    io.ReadCloser // opened when first read
	skipped bool
}

func (r *treeReader) Read(p []byte) (int, error) {
	for len(r.segment) == 0 && r.left == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	if len(r.segment) > 0 {
		n := copy(p, r.segment)
		r.segment = r.segment[n:]
		r.off += int64(n)
		return n, nil
	}
	n, err := r.content(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.off += int64(n)
	return n, err
}

// next goes to the following segment or file.
func (r *treeReader) next() error {
	if err := r.closeFile(); err != nil {
		return err
	}
	e, err := r.entries.next()
	if err != nil {
		return err
	}
	if e.Type == tarsplit.SegmentType {
		r.segment = e.Payload
	} else {
		r.name, r.left, r.skipped = e.GetName(), e.Size, false
	}
	return nil
}

func (r *treeReader) content(p []byte) (int, error) {
	if r.skipped {
		clear(p)
		return len(p), nil
	}
	if r.file == nil {
		f, err := r.files.open(r.name)
		if err != nil {
			return 0, fmt.Errorf("reading layer from local storage: %w", err)
		}
		r.file = f
	}
	n, err := r.file.Read(p)
	switch {
	case int64(n) == r.left: // whatever else is in the file
		return n, nil
	case err == io.EOF:
		return n, fmt.Errorf("reading layer from local storage: %s is %d bytes too short", r.name, r.left-int64(n))
	}
	return n, err
}

// Seek implements io.Seeker as far as a reader of headers needs it: it tells
// the stream's length, and goes forward.
func (r *treeReader) Seek(offset int64, whence int) (int64, error) {
	switch {
	case whence == io.SeekEnd && offset == 0:
		return r.size, nil
	case whence == io.SeekStart:
		offset -= r.off
	case whence != io.SeekCurrent:
		offset = -1
	}
	if offset < 0 {
		return 0, errors.New("seeking in a stored layer: only forward")
	}
	for offset > 0 {
		step := min(offset, max(int64(len(r.segment)), r.left))
		if step == 0 {
			if err := r.next(); err == io.EOF {
				return 0, io.ErrUnexpectedEOF
			} else if err != nil {
				return 0, err
			}
			continue
		}
		if len(r.segment) > 0 {
			r.segment = r.segment[step:]
		} else if r.left -= step; r.file == nil {
			r.skipped = true
		} else if _, err := io.CopyN(io.Discard, r.file, step); err != nil {
			return 0, err
		}
		r.off += step
		offset -= step
	}
	return r.off, nil
}

func (r *treeReader) closeFile() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.Close()
}

// Close implements io.Closer.
func (r *treeReader) Close() error {
	return errors.Join(r.closeFile(), r.closers.Close())
}
