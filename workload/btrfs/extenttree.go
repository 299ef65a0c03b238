package btrfs

import "github.com/ccrun/ccrun/workload/rootfs"

const (
	isData      = 1
	isTreeBlock = 2
)

// extentItems lists what every used byte belongs to: data to its file, nodes to
// their tree; and each chunk, right after what begins where it begins.
func (l *Layout) extentItems(put putFunc) error {
	nodes, chunks := l.nodes, l.space.chunks
	one := func(k key, data []byte) error {
		if err := put(k, data); err != nil {
			return err
		}
		if len(chunks) == 0 || k.object != chunks[0].start {
			return nil
		}
		c := chunks[0]
		chunks = chunks[1:]
		return put(key{c.start, blockGroupItem, c.length}, record(l.buf[:0]).u64(c.used, firstChunk, c.kind))
	}
	upTo := func(at uint64) error {
		for len(nodes) > 0 && nodes[0].at < at {
			if err := l.nodeItem(nodes[0], one); err != nil {
				return err
			}
			nodes = nodes[1:]
		}
		return nil
	}
	for i := range l.inodes {
		if l.inodes[i].node.Kind != rootfs.Regular {
			continue
		}
		err := l.eachExtent(&l.inodes[i], func(e extent) error {
			if err := upTo(e.at); err != nil {
				return err
			}
			return l.dataItem(int32(i), e, one)
		})
		if err != nil {
			return err
		}
	}
	return upTo(l.space.next())
}

func (l *Layout) nodeItem(n placed, put putFunc) error {
	return put(key{n.at, metadataItem, uint64(n.level)},
		record(l.buf[:0]).u64(1, generation, isTreeBlock).u8(treeBlockRef).u64(n.owner))
}

func (l *Layout) dataItem(slot int32, e extent, put putFunc) error {
	return put(key{e.at, extentItem, e.length},
		record(l.buf[:0]).u64(1, generation, isData).u8(extentDataRef).u64(fsTree, inoOf(slot), e.offset).u32(1))
}

// freeItems says what of each chunk is free: what is left at its end.
func (l *Layout) freeItems(put putFunc) error {
	for _, c := range l.space.chunks {
		extents := uint32(0)
		if c.used < c.length {
			extents = 1
		}
		if err := put(key{c.start, freeSpaceInfo, c.length}, record(l.buf[:0]).u32(extents).u32(0)); err != nil {
			return err
		}
		if extents == 0 {
			continue
		}
		if err := put(key{c.end(), freeSpaceExtent, c.length - c.used}, nil); err != nil {
			return err
		}
	}
	return nil
}
