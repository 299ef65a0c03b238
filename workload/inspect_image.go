package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"

	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/source"
)

func (in *Inspection) image(ctx context.Context, sys *types.SystemContext, name string) error {
	src, err := source.Open(ctx, name, source.Options{System: sys})
	if err != nil {
		return err
	}
	defer src.Close()
	in.Image = &ImageInspection{Digest: src.Digest.String(), ID: src.ID.String(), Labels: src.Config.Config.Labels}
	for _, l := range src.Layers {
		in.Image.Layers = append(in.Image.Layers, l.Digest().String())
		if err := in.layer(ctx, l); err != nil {
			return err
		}
	}
	if in.Disk.SizeBytes == 0 {
		return hint.With(fmt.Errorf("no /%s in it: not a workload image", krun.DiskFile), "`ccrun build` makes one")
	}
	return nil
}

// layer streams one layer to its end, so that its digest is checked too.
func (in *Inspection) layer(ctx context.Context, l *source.Layer) error {
	rc, err := l.Stream(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return l.Wrap(err)
		}
		if len(in.Image.Files) < 1000 {
			in.Image.Files = append(in.Image.Files, FileInspection{path.Clean("/" + h.Name), h.Size, h.FileInfo().Mode().String()})
		}
		if err := in.file(h, tr); err != nil {
			return l.Wrap(fmt.Errorf("%s: %w", path.Clean(h.Name), err))
		}
	}
	_, err = io.Copy(io.Discard, rc)
	return err
}

func (in *Inspection) file(h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	switch path.Clean(h.Name) {
	case krun.TEEConfigFile:
		b, err := bounded.Read(r, krun.TEEConfigFile, maxTEEConfigBytes)
		if err == nil {
			in.teeConfig(krun.TEEConfigFile, b)
		}
		return err
	case krun.InitrdFile:
		b, err := bounded.Read(r, krun.InitrdFile, maxInitrdBytes)
		if err == nil {
			in.initrd(b)
		}
		return err
	case krun.DiskFile:
		return in.diskStream(r, h.Size)
	}
	return nil
}

// diskStream looks at the two ends of a disk that can only be read through.
func (in *Inspection) diskStream(r io.Reader, size int64) error {
	head := make([]byte, min(size, headBytes))
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if err := in.header(bytes.NewReader(head), size); err != nil {
		return err
	}
	t := &tail{keep: krun.MaxFooterBytes + krun.FooterAlign}
	t.write(head)
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		t.write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	footer, err := krun.ReadFooter(bytes.NewReader(t.b), int64(len(t.b)))
	if err != nil {
		in.problem("%v", err)
		return nil
	}
	in.footer(footer.JSON)
	return nil
}

// tail keeps the last bytes of what is written.
type tail struct {
	keep int
	b    []byte
}

func (t *tail) write(p []byte) {
	if len(p) > t.keep {
		p = p[len(p)-t.keep:]
	}
	if over := len(t.b) + len(p) - t.keep; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	t.b = append(t.b, p...)
}
