package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrSourceChanged is wrapped when a layer is not what it was while merging.
var ErrSourceChanged = errors.New("source changed between passes")

// Contents opens the layers again and calls visit for every regular file that
// survived, each inode once, in the order of Files: layers in order, then
// generated files. r gives exactly n.Size bytes; holes read as zeros. visit
// need not read all of it, and must not keep r.
//
// A layer whose headers differ from the first pass is an error wrapping
// ErrSourceChanged; so is data where the first pass saw a hole, if visit reads
// it. Whether the contents are the same only the Layer's own digest can tell.
func (t *Tree) Contents(ctx context.Context, visit func(n *Node, r io.Reader) error) error {
	files := t.Files()
	for i, layer := range t.layers {
		k := 0
		for k < len(files) && files[k].layer == int32(i) {
			k++
		}
		if err := t.layerContents(ctx, i, layer, files[:k], visit); err != nil {
			return atLayer(i, err)
		}
		files = files[k:]
	}
	for _, n := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := visit(n, bytes.NewReader(n.extra.content)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) layerContents(ctx context.Context, i int, layer Layer, files []*Node, visit func(*Node, io.Reader) error) error {
	r, err := layer.Open(ctx)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	defer r.Close()
	s := newSource(ctx, r, t.layerBytes)
	for ordinal := int32(0); ; ordinal++ {
		hdr, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if ordinal >= t.headers[i] {
			return fmt.Errorf("%w: expected %d entries, got more", ErrSourceChanged, t.headers[i])
		}
		if len(files) == 0 || files[0].ordinal != ordinal {
			continue
		}
		n := files[0]
		files = files[1:]
		if hdr.Size != n.Size {
			err = fmt.Errorf("%w: expected %d bytes, got %d", ErrSourceChanged, n.Size, hdr.Size)
		} else {
			err = visit(n, contentReader(n, s.tr))
		}
		if err != nil {
			return &EntryError{Path: hdr.Name, Err: err}
		}
	}
	if s.count != t.headers[i] {
		return fmt.Errorf("%w: expected %d entries, got %d", ErrSourceChanged, t.headers[i], s.count)
	}
	if err := s.drain(); err != nil {
		return err
	}
	if s.sum() != t.fingerprints[i] {
		return fmt.Errorf("%w: its headers differ", ErrSourceChanged)
	}
	return nil
}

func contentReader(n *Node, r io.Reader) io.Reader {
	data, sparse := n.Data()
	if !sparse {
		return r
	}
	return &holeChecker{r: r, data: data}
}

// holeChecker passes a sparse file through and refuses data in its holes: a
// writer that leaves them out would lose it.
type holeChecker struct {
	r    io.Reader
	data []Range
	off  int64
}

func (h *holeChecker) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		for len(h.data) > 0 && h.data[0].Offset+h.data[0].Length <= h.off {
			h.data = h.data[1:]
		}
		step, hole := int64(len(rest)), true
		if len(h.data) > 0 {
			if hole = h.off < h.data[0].Offset; hole {
				step = min(step, h.data[0].Offset-h.off)
			} else {
				step = min(step, h.data[0].Offset+h.data[0].Length-h.off)
			}
		}
		if hole && !allZero(rest[:step]) {
			return 0, fmt.Errorf("%w: data at byte %d, where a hole was", ErrSourceChanged, h.off)
		}
		h.off += step
		rest = rest[step:]
	}
	return n, err
}

func allZero(b []byte) bool {
	for len(b) > 0 {
		k := min(len(b), sparseBlock)
		if !isZero(b[:k]) {
			return false
		}
		b = b[k:]
	}
	return true
}
