package ext4

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// WriteTo writes the file system to w: SizeBytes bytes, in order, no seeking.
// It reads the layers once more; errors name layer and file, and wrap
// rootfs.ErrSourceChanged if the layers are not what they were. It may be
// called again.
func (l *Layout) WriteTo(ctx context.Context, w io.Writer) error {
	gdt := l.descriptors()
	s := newStream(ctx, w, l.reserved, func(at span) []byte {
		b := make([]byte, blockSize, blockSize+len(gdt))
		copy(b, l.super(uint32(at.start/uint64(l.blocksPerGroup))))
		return append(b, gdt...)
	})
	head := make([]byte, blockSize)
	copy(head[superOffset:], l.super(0))
	for _, step := range []func(*stream) error{
		func(s *stream) error { return s.write(head) },
		func(s *stream) error { return s.write(gdt) },
		l.writeBitmaps, l.writeInodes, l.writeNames, l.writeXattrs, l.writeJournal,
		func(s *stream) error { return l.writeContents(ctx, s) },
		func(s *stream) error { return s.seek(l.blocks) },
		func(s *stream) error { return s.seek(uint64(l.sizeBytes / blockSize)) },
		(*stream).flush,
	} {
		if err := step(s); err != nil {
			return fmt.Errorf("writing ext4: %w", err)
		}
	}
	return nil
}

func (l *Layout) writeBitmaps(s *stream) error {
	b := make([]byte, blockSize)
	if err := s.seek(l.blockBitmaps); err != nil {
		return err
	}
	for g := range l.groups {
		l.blockBitmap(b, g)
		if err := s.write(b); err != nil {
			return err
		}
	}
	if err := s.seek(l.inodeBitmaps); err != nil {
		return err
	}
	for g := range l.groups {
		l.inodeBitmap(b, g)
		if err := s.write(b); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) writeInodes(s *stream) error {
	b := make([]byte, blockSize)
	for g, at := range l.inodeTables {
		if err := s.seek(at); err != nil {
			return err
		}
		first := uint32(g)*l.inodesPerGroup + 1
		blocks := (l.usedInodes(uint32(g)) + inodesPerBlock - 1) / inodesPerBlock
		for i := range blocks {
			clear(b)
			l.inodeBlock(b, first+i*inodesPerBlock)
			if err := s.write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// inodeBlock fills one block of an inode table.
func (l *Layout) inodeBlock(b []byte, first uint32) {
	for i := range uint32(inodesPerBlock) {
		ino := first + i
		part := b[i*inodeSize : (i+1)*inodeSize]
		switch {
		case ino == rootIno:
			l.putInode(part, 0)
		case ino == journalIno && l.journal.blocks > 0:
			l.putJournalInode(part)
		case ino >= firstFreeIno && ino <= l.lastIno():
			l.putInode(part, int32(ino-firstFreeIno+1))
		}
	}
}

// writeNames writes directories and long symlinks.
func (l *Layout) writeNames(s *stream) error {
	for i := range l.inodes {
		in := &l.inodes[i]
		if in.node.Kind == rootfs.Regular || in.blocks == 0 {
			continue
		}
		var content []byte
		if in.node.Kind == rootfs.Directory {
			content = l.dirBlocks(int32(i))
		} else {
			content = make([]byte, blockSize)
			copy(content, in.node.Target())
		}
		if err := l.writeInodeTree(s, in, inoOf(int32(i))); err != nil {
			return err
		}
		err := l.eachExtent(in.data, in.runs(), func(e extent) error {
			if err := s.seek(e.physical); err != nil {
				return err
			}
			from := int64(e.logical) * blockSize
			return s.write(content[from : from+int64(e.count)*blockSize])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) writeInodeTree(s *stream, in *inode, ino uint32) error {
	if in.treeBlocks == 0 {
		return nil
	}
	if err := s.seek(in.tree); err != nil {
		return err
	}
	return s.write(l.extentBlocks(in, ino, make([]byte, iBlockLen)))
}

func (l *Layout) writeXattrs(s *stream) error {
	for i := range l.inodes {
		in := &l.inodes[i]
		if !in.hasXattr {
			continue
		}
		_, attrs, err := splitXattrs(in.node)
		if err != nil {
			return err
		}
		if err := s.seek(in.xattr); err != nil {
			return err
		}
		if err := s.write(l.xattrBlock(attrs, in.xattr)); err != nil {
			return err
		}
	}
	return nil
}

// writeJournal writes an empty journal: its superblock, and zeros.
func (l *Layout) writeJournal(s *stream) error {
	if l.journal.blocks == 0 {
		return nil
	}
	if err := l.writeInodeTree(s, &l.journal, journalIno); err != nil {
		return err
	}
	if err := s.seek(l.journal.data); err != nil {
		return err
	}
	b := make([]byte, blockSize)
	be := binary.BigEndian
	be.PutUint32(b[0:], 0xC03B3998)
	be.PutUint32(b[4:], 4) // superblock, version 2
	be.PutUint32(b[12:], blockSize)
	be.PutUint32(b[16:], l.journal.blocks)
	be.PutUint32(b[20:], 1) // the log's first block
	be.PutUint32(b[24:], 1) // the first transaction; none is there, as s_start is 0
	copy(b[48:], l.opts.UUID[:])
	be.PutUint32(b[64:], 1) // users
	return s.write(b)
}

func (l *Layout) writeContents(ctx context.Context, s *stream) error {
	return l.tree.Contents(ctx, func(n *rootfs.Node, r io.Reader) error {
		slot := l.slot(n)
		in := &l.inodes[slot]
		if in.node != n {
			return fmt.Errorf("the tree was changed after planning")
		}
		if err := l.writeInodeTree(s, in, inoOf(slot)); err != nil {
			return err
		}
		var off int64 // in the file
		return l.eachExtent(in.data, in.runs(), func(e extent) error {
			start := int64(e.logical) * blockSize
			if _, err := io.CopyN(io.Discard, r, start-off); err != nil {
				return fmt.Errorf("reading a hole: %w", err)
			}
			if err := s.seek(e.physical); err != nil {
				return err
			}
			length := min(int64(e.count)*blockSize, n.Size-start)
			off = start + length
			return s.copyFrom(r, length)
		})
	})
}
