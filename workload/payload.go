package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/krun"
)

// payload is the single layer of a workload image.
type payload struct {
	teeConfig []byte // krun.TEEConfigFile and the disk's footer
	initrd    []byte // agent and identity segment
	hints     []byte // krun.HintsFile
	diskBytes int64
	writeDisk func(context.Context, io.Writer) error // exactly diskBytes
	created   time.Time
	classic   bool // as `buildah mkcw` lays it out: no initrd
}

// payload is the layer with the sealed disk, which writeDisk writes.
func (s *sealed) payload(hints []byte, created time.Time, writeDisk func(context.Context, io.Writer) error) *payload {
	return &payload{teeConfig: s.teeConfig, initrd: s.initrd, hints: hints, diskBytes: s.diskBytes(), created: created, classic: s.classic, writeDisk: writeDisk}
}

// smallFiles are the entries before the disk, so that a reader who wants only
// them need not pass through it.
func (p *payload) smallFiles() []tarFile {
	if p.classic {
		return []tarFile{{krun.EntrypointFile, 0o755, stub()}, {krun.TEEConfigFile, 0o600, p.teeConfig}, {"tmp/", 0o1777, nil}}
	}
	return []tarFile{
		{"tmp/", 0o1777, nil},
		{krun.EntrypointFile, 0o555, stub()},
		{krun.TEEConfigFile, 0o444, p.teeConfig},
		{krun.HintsFile, 0o444, p.hints},
		{krun.InitrdFile, 0o444, p.initrd},
	}
}

type tarFile struct {
	name    string
	mode    int64
	content []byte
}

func (p *payload) header(name string, mode, size int64) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: p.created.Truncate(time.Second)}
	if name[len(name)-1] == '/' {
		h.Typeflag = tar.TypeDir
	}
	return h
}

// sizeBytes is what write will write: known before the first byte, because
// registries and archives want it in front.
func (p *payload) sizeBytes() (int64, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := p.writeSmall(w); err != nil {
		return 0, err
	}
	if err := w.WriteHeader(p.header(krun.DiskFile, 0o600, p.diskBytes)); err != nil {
		return 0, err
	}
	const block, end = 512, 2 * 512
	padded := (p.diskBytes + block - 1) / block * block
	return int64(b.Len()) + padded + end, nil
}

func (p *payload) writeSmall(w *tar.Writer) error {
	for _, f := range p.smallFiles() {
		if err := w.WriteHeader(p.header(f.name, f.mode, int64(len(f.content)))); err != nil {
			return err
		}
		if _, err := w.Write(f.content); err != nil {
			return err
		}
	}
	return nil
}

// write streams the layer.
func (p *payload) write(ctx context.Context, to io.Writer) error {
	w := tar.NewWriter(to)
	if err := p.writeSmall(w); err != nil {
		return err
	}
	if err := w.WriteHeader(p.header(krun.DiskFile, 0o600, p.diskBytes)); err != nil {
		return err
	}
	if err := p.writeDisk(ctx, w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("disk came out shorter than planned: %w", err)
	}
	return nil
}
