package ext4

import "sort"

// blockBitmap fills in a group's bitmap and returns how many blocks are free.
// Bits past the group's end are set.
func (l *Layout) blockBitmap(b []byte, group uint32) (free uint32) {
	clear(b)
	start := uint64(group) * uint64(l.blocksPerGroup)
	end := min(start+uint64(l.blocksPerGroup), l.blocks)
	free = uint32(end - start)
	i := sort.Search(len(l.used), func(i int) bool { return l.used[i].end > start })
	for ; i < len(l.used) && l.used[i].start < end; i++ {
		from, to := max(l.used[i].start, start), min(l.used[i].end, end)
		setBits(b, uint32(from-start), uint32(to-start))
		free -= uint32(to - from)
	}
	setBits(b, uint32(end-start), 8*blockSize)
	return free
}

// inodeBitmap fills in a group's inode bitmap.
func (l *Layout) inodeBitmap(b []byte, group uint32) {
	clear(b)
	setBits(b, 0, l.usedInodes(group))
	setBits(b, l.inodesPerGroup, 8*blockSize)
}

// setBits sets the bits from..to-1.
func setBits(b []byte, from, to uint32) {
	for from < to && from%8 != 0 {
		b[from/8] |= 1 << (from % 8)
		from++
	}
	for from+8 <= to {
		b[from/8] = 0xFF
		from += 8
	}
	for from < to {
		b[from/8] |= 1 << (from % 8)
		from++
	}
}
