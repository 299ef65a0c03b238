package destination

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// archiveImage writes an image archive in one pass. The layer comes first and
// its name, the digest, is known only afterwards, so its header is filled in at
// the end; the libraries' writers make a whole copy instead.
type archiveImage struct {
	path, image string
	format      archiveFormat
	out         *scratch.OutFile
	layer       blob.Info
}

const tarBlock = 512

func newArchiveImage(path, image string, f archiveFormat) (*archiveImage, error) {
	if st, err := os.Stat(path); err == nil && (st.Size() > 0 || !st.Mode().IsRegular()) {
		return nil, hint.With(fmt.Errorf("%s: %w", path, os.ErrExist), "archives hold one image: remove it or choose another name")
	}
	out, err := scratch.NewOutFile(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return &archiveImage{path: path, image: image, format: f, out: out}, nil
}

func (d *archiveImage) Accepts() []string { return d.format.accepts() }

func (d *archiveImage) PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.layer, err = d.out.Fill(ctx, tarBlock, size, write)
	return d.layer, err
}

func (d *archiveImage) Publish(_ context.Context, config, mf []byte) error {
	head, err := archiveHeader(d.format.layerName(d.layer.Digest), d.layer.Size)
	if err != nil {
		return err
	}
	if _, err := d.out.File.WriteAt(head, 0); err != nil {
		return scratch.SpaceError(d.path, err)
	}
	files, err := d.format.rest(d.image, config, mf, d.layer.Digest)
	if err != nil {
		return err
	}
	pad := (tarBlock - d.layer.Size%tarBlock) % tarBlock
	end, err := d.out.File.Seek(tarBlock+d.layer.Size+pad, io.SeekStart)
	if err != nil {
		return err
	}
	if err := d.out.File.Truncate(end); err != nil {
		return err
	}
	if err := writeEntries(d.out.File, files); err != nil {
		return scratch.SpaceError(d.path, err)
	}
	err = d.out.Publish(d.path, 0o644)
	if errors.Is(err, os.ErrExist) {
		return hint.With(err, "another build wrote it meanwhile: choose another name")
	}
	return err
}

func (d *archiveImage) Close() error { return d.out.Close() }

// archiveHeader is one block, whatever the size: GNU's binary form has room.
func archiveHeader(name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatGNU}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, err
	}
	if b.Len() != tarBlock {
		return nil, fmt.Errorf("tar header of %d bytes, expected %d", b.Len(), tarBlock)
	}
	return b.Bytes(), nil
}

func writeEntries(to io.Writer, files []archiveEntry) error {
	w := tar.NewWriter(to)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content)), ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(f.content); err != nil {
			return err
		}
	}
	return w.Close()
}
