package ext4

import (
	"fmt"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// fit finds the size, if none was given, and places everything.
func (l *Layout) fit() error {
	needed := uint64(len(l.inodes)) + reservedInos
	if l.opts.SizeBytes != 0 {
		return l.fitGiven(needed)
	}
	content := l.contentBlocks()
	free := max(minFreeBytes/blockSize, content/freeShare)
	if l.opts.FreeBytes != 0 {
		free = uint64(l.opts.FreeBytes+blockSize-1) / blockSize
	}
	inodes := needed + needed/spareInodes + free*blockSize/bytesPerInode
	size := (content + free + inodes/inodesPerBlock + smallestFSBlocks) * blockSize
	if l.opts.Journal {
		size = max(size, smallestJournaled*blockSize)
	}
	// Each round adds what was missing; overhead grows far slower than size.
	for range 64 {
		size = (size + sizeStep - 1) / sizeStep * sizeStep
		if size/blockSize > maxBlocks {
			return fmt.Errorf("content needs more than 16 TiB")
		}
		end, err := l.place(int64(size), uint32(inodes))
		if err != nil {
			size += size / 4 // more groups, for more inodes
			continue
		}
		used := l.usedBlocks()
		missing := max(int64(used+free)-int64(l.blocks), int64(end)-int64(l.blocks))
		if missing <= 0 {
			return nil
		}
		size += uint64(missing) * blockSize
	}
	return fmt.Errorf("no size fits %d blocks of content", content)
}

func (l *Layout) fitGiven(needed uint64) error {
	if l.opts.SizeBytes/blockSize < smallestFSBlocks {
		return fmt.Errorf("%w: need at least 1 MiB, got %d bytes", ErrTooSmall, l.opts.SizeBytes)
	}
	if l.opts.Journal && l.opts.SizeBytes/blockSize < smallestJournaled {
		return fmt.Errorf("%w: need 8 MiB for a journal, got %d bytes", ErrTooSmall, l.opts.SizeBytes)
	}
	end, err := l.place(l.opts.SizeBytes, uint32(max(needed, uint64(l.opts.SizeBytes/bytesPerInode))))
	if err != nil {
		return err
	}
	if end > l.blocks {
		return fmt.Errorf("%w: need %d bytes, got %d", ErrTooSmall,
			l.opts.SizeBytes+int64(end-l.blocks)*blockSize, l.opts.SizeBytes)
	}
	return nil
}

// contentBlocks is what the tree takes, whatever the size.
func (l *Layout) contentBlocks() (n uint64) {
	for i := range l.inodes {
		n += uint64(l.inodes[i].blocks)
		if l.inodes[i].hasXattr {
			n++
		}
	}
	return n
}

// place assigns every block for a size and returns the end of the last one
// used, which may be beyond the file system.
func (l *Layout) place(sizeBytes int64, inodes uint32) (end uint64, err error) {
	if l.geometry, err = newGeometry(sizeBytes, inodes); err != nil {
		return 0, err
	}
	a := &allocator{reserved: l.reserved}
	a.contiguous(1 + uint64(l.gdtBlocks))
	l.blockBitmaps = a.contiguous(uint64(l.groups))
	l.inodeBitmaps = a.contiguous(uint64(l.groups))
	l.inodeTables = make([]uint64, l.groups)
	for g := range l.inodeTables {
		l.inodeTables[g] = a.contiguous(uint64(l.inodesPerGroup / inodesPerBlock))
	}
	for i := range l.inodes {
		if in := &l.inodes[i]; in.node.Kind != rootfs.Regular {
			l.placeData(a, in, []blockRun{{0, in.blocks}})
		}
	}
	for i := range l.inodes {
		if in := &l.inodes[i]; in.hasXattr {
			in.xattr = a.contiguous(1)
		}
	}
	l.journal = inode{blocks: l.journalBlocks()}
	l.placeData(a, &l.journal, []blockRun{{0, l.journal.blocks}})
	for _, n := range l.files {
		l.placeData(a, &l.inodes[l.slot(n)], dataBlocks(n))
	}
	end = a.next
	a.finish()
	l.used = a.used
	return end, nil
}

// placeData puts a file's extent tree, if it needs one, right before its data.
// How many extents there are depends on where the data starts, and that on the
// size of the tree: two or three rounds settle it.
func (l *Layout) placeData(a *allocator, in *inode, runs []blockRun) {
	in.tree, in.data, in.treeBlocks = 0, 0, 0
	if in.blocks == 0 {
		return
	}
	for {
		try := *a
		try.used = nil
		try.skip(max(uint64(in.treeBlocks), 1))
		try.next += uint64(in.treeBlocks)
		try.skip(1)
		n := treeBlocks(l.countExtents(try.next, runs))
		if n <= in.treeBlocks {
			break
		}
		in.treeBlocks = n
	}
	if in.treeBlocks > 0 {
		in.tree = a.contiguous(uint64(in.treeBlocks))
	}
	in.data = a.scattered(uint64(in.blocks))
}

// journalBlocks is what mke2fs takes for a size that was asked for. A disk as
// small as its content is not for much writing: it gets 1/256, and at least
// what the kernel insists on.
func (l *Layout) journalBlocks() uint32 {
	if !l.opts.Journal {
		return 0
	}
	usual := l.usualJournalBlocks()
	if l.opts.SizeBytes != 0 {
		return usual
	}
	return min(usual, max(minJournalBlocks, uint32(l.blocks/256)))
}

func (l *Layout) usualJournalBlocks() uint32 {
	switch {
	case l.blocks < 32768:
		return minJournalBlocks
	case l.blocks < 256<<10:
		return 4096
	case l.blocks < 512<<10:
		return 8192
	case l.blocks < 4<<20:
		return 16384
	case l.blocks < 8<<20:
		return 32768
	case l.blocks < 16<<20:
		return 65536
	case l.blocks < 32<<20:
		return 131072
	}
	return 262144
}

func (l *Layout) usedBlocks() (n uint64) {
	for _, s := range l.used {
		n += s.end - s.start
	}
	return n
}

func (l *Layout) freeBlocks() uint64 { return l.blocks - l.usedBlocks() }
