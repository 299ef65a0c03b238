package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// WriteTo writes the file system to w: SizeBytes bytes, in order, no seeking.
// It reads the layers once more; errors name layer and file, and wrap
// rootfs.ErrSourceChanged if the layers are not what they were. It may be
// called again.
func (l *Layout) WriteTo(ctx context.Context, w io.Writer) error {
	wr := &writer{Layout: l, stream: newStream(ctx, w)}
	wr.files = packer{spare: &wr.spare, done: wr.leafOf(l.fs)}
	wr.sums.packer = packer{spare: &wr.spare, done: wr.leafOf(l.sums)}
	for _, step := range []func() error{
		func() error { return wr.zeros(superOffset) },
		func() error { return wr.write(l.super(superOffset)) },
		wr.front,
		func() error { return l.tree.Contents(ctx, wr.file) },
		wr.closeLeaves,
		wr.writeRest,
		func() error { return wr.fill(uint64(l.SizeBytes())) },
		wr.flush,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("writing BTRFS: %w", err)
		}
	}
	return nil
}

// writer goes the planner's way with the contents in hand.
type writer struct {
	*Layout
	*stream
	files   packer
	sums    summer
	spare   spare
	waiting []leaf // full, and not yet at their places
	chunk   int    // the one that is being written
	next    int32  // the slot of the next file
	content [inlineLimit]byte
}

// leaf is one that is complete.
type leaf struct {
	at    uint64
	bytes []byte
}

var errMoved = errors.New("not at the planned place (a bug in this package)")

func (w *writer) leafOf(t *tree) func(key, []byte) error {
	i := 0
	return func(first key, b []byte) error {
		if i == len(t.levels[0]) || t.levels[0][i].first != first {
			return fmt.Errorf("leaf %d of tree %d: %w", i, t.owner, errMoved)
		}
		at := t.levels[0][i].at
		w.seal(b, at, t.owner, 0)
		w.waiting = append(w.waiting, leaf{at, b})
		i++
		return nil
	}
}

// front lists everything that is no regular file.
func (w *writer) front() error {
	for i := range w.inodes {
		if w.inodes[i].node.Kind == rootfs.Regular {
			break
		}
		if err := w.items(int32(i), nil, w.files.add); err != nil {
			return err
		}
		if err := w.drain(); err != nil {
			return err
		}
		w.next++
	}
	return nil
}

// file writes one file's data, and its items into a leaf.
func (w *writer) file(n *rootfs.Node, r io.Reader) error {
	slot := w.next
	w.next++
	if int(slot) >= len(w.inodes) || w.inodes[slot].node != n {
		return errors.New("the tree was changed after planning")
	}
	var content []byte
	if isInline(n) {
		content = w.content[:n.Size]
		if _, err := io.ReadFull(r, content); err != nil {
			return fmt.Errorf("reading content: %w", unexpected(err))
		}
	} else if err := w.extents(slot, r); err != nil {
		return err
	}
	if err := w.items(slot, content, w.files.add); err != nil {
		return err
	}
	return w.drain()
}

func (w *writer) extents(slot int32, r io.Reader) error {
	in := &w.inodes[slot]
	size, off := uint64(in.node.Size), uint64(0)
	return w.eachExtent(in, func(e extent) error {
		if _, err := io.CopyN(io.Discard, r, int64(e.offset-off)); err != nil {
			return fmt.Errorf("reading a hole: %w", unexpected(err))
		}
		if err := w.drain(); err != nil {
			return err
		}
		if err := w.seek(e.at); err != nil {
			return err
		}
		n := min(e.length, size-e.offset)
		off = e.offset + n
		return w.data(r, n, e.length, w.sums.add)
	})
}

// drain writes the leaves that wait, as far as all data before them is there.
func (w *writer) drain() error {
	done := 0
	for _, leaf := range w.waiting {
		if !w.reaches(leaf.at) {
			break
		}
		if err := w.node(leaf.at, leaf.bytes); err != nil {
			return err
		}
		done++
	}
	w.waiting = slices.Delete(w.waiting, 0, done)
	return nil
}

// reaches tells whether everything before a place has been written.
func (w *writer) reaches(at uint64) bool {
	chunks := w.space.chunks[w.chunk:]
	return w.at == at || w.at <= chunks[0].start && at == chunks[0].start ||
		w.at == chunks[0].end() && len(chunks) > 1 && at == chunks[1].start
}

// seek goes to a place that all is written before.
func (w *writer) seek(at uint64) error {
	if !w.reaches(at) {
		return fmt.Errorf("byte %d, at %d: %w", at, w.at, errMoved)
	}
	if at >= w.space.chunks[w.chunk].end() {
		w.chunk++
	}
	return w.fill(at)
}

// fill goes to a place; the superblock's copies on the way are written.
func (w *writer) fill(at uint64) error {
	for _, m := range mirrors {
		if w.at <= m && m < at {
			if err := w.zeros(m); err != nil {
				return err
			}
			if err := w.write(w.super(m)); err != nil {
				return err
			}
		}
	}
	return w.zeros(at)
}

// node writes a node, whose memory is free then.
func (w *writer) node(at uint64, b []byte) error {
	if err := w.seek(at); err != nil {
		return err
	}
	if err := w.write(b); err != nil {
		return err
	}
	w.spare.put(b)
	return nil
}

// closeLeaves writes the last leaves of files and checksums.
func (w *writer) closeLeaves() error {
	if err := w.files.close(); err != nil {
		return err
	}
	if err := w.sums.close(); err != nil {
		return err
	}
	if err := w.drain(); err != nil {
		return err
	}
	if len(w.waiting) > 0 {
		return fmt.Errorf("%d leaves left: %w", len(w.waiting), errMoved)
	}
	return nil
}

// writeRest writes the upper nodes of the trees so far, and the other trees.
func (w *writer) writeRest() error {
	if err := w.uppers(w.fs); err != nil {
		return err
	}
	if err := w.uppers(w.Layout.sums); err != nil {
		return err
	}
	for _, p := range w.parts() {
		i := 0
		pack := packer{spare: &w.spare, done: func(_ key, b []byte) error {
			at := p.levels[0][i].at
			i++
			w.seal(b, at, p.owner, 0)
			return w.node(at, b)
		}}
		if err := p.items(pack.add); err != nil {
			return err
		}
		if err := pack.close(); err != nil {
			return err
		}
		if err := w.uppers(p.tree); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) uppers(t *tree) error {
	for level := 1; level < len(t.levels); level++ {
		for i, n := range t.levels[level] {
			b := w.spare.get()
			w.upper(b, t, level, i)
			if err := w.node(n.at, b); err != nil {
				return err
			}
		}
	}
	return nil
}
