package ext4

import (
	"fmt"
	"slices"
)

const (
	descSize         = 64
	descsPerBlock    = blockSize / descSize
	inodesPerBlock   = blockSize / inodeSize
	maxInodesPerGrp  = 8 * blockSize
	bytesPerInode    = 16384
	maxBlocksPerGrp  = 8 * blockSize
	minBlocksPerGrp  = 8192
	smallestLastGrp  = 50 // blocks beside the copies; mke2fs drops smaller groups too
	smallestFSBlocks = 256
	// smallestJournaled is the least mke2fs makes a journal in.
	smallestJournaled = 2048
)

// geometry is what the size decides.
type geometry struct {
	sizeBytes      int64
	blocks         uint64
	blocksPerGroup uint32
	inodesPerGroup uint32
	groups         uint32
	gdtBlocks      uint32
	reserved       []span // the copies of superblock and descriptors, sorted
	blockBitmaps   uint64 // first of one block per group
	inodeBitmaps   uint64
	inodeTables    []uint64 // first block, per group
}

// newGeometry chooses group size and inode count for a size and a number of
// inodes needed. Groups get smaller when one inode per 128 MiB/32768 is too few.
func newGeometry(sizeBytes int64, inodes uint32) (geometry, error) {
	g := geometry{sizeBytes: sizeBytes, blocks: uint64(sizeBytes / blockSize)}
	for bpg := uint32(maxBlocksPerGrp); ; bpg /= 2 {
		if bpg < minBlocksPerGrp {
			return g, fmt.Errorf("%w: %d inodes do not fit in %d bytes", ErrTooSmall, inodes, sizeBytes)
		}
		g.setGroups(bpg)
		if uint64(g.groups)*maxInodesPerGrp >= uint64(inodes) {
			break
		}
	}
	perGroup := (uint64(inodes) + uint64(g.groups) - 1) / uint64(g.groups)
	g.inodesPerGroup = min(uint32(perGroup+inodesPerBlock-1)/inodesPerBlock*inodesPerBlock, maxInodesPerGrp)
	for n := range g.groups {
		if n > 0 && hasCopy(n) {
			start := uint64(n) * uint64(g.blocksPerGroup)
			g.reserved = append(g.reserved, span{start, start + 1 + uint64(g.gdtBlocks)})
		}
	}
	return g, nil
}

func (g *geometry) setGroups(bpg uint32) {
	g.blocks = uint64(g.sizeBytes / blockSize)
	for {
		g.blocksPerGroup = bpg
		g.groups = uint32((g.blocks + uint64(bpg) - 1) / uint64(bpg))
		g.gdtBlocks = (g.groups + descsPerBlock - 1) / descsPerBlock
		rest := g.blocks % uint64(bpg)
		if rest == 0 || g.groups < 2 || rest >= uint64(g.gdtBlocks)+1+smallestLastGrp {
			return
		}
		g.blocks -= rest // too small for a group: stays zero, outside the file system
	}
}

// hasCopy tells whether sparse_super puts a copy into a group.
func hasCopy(group uint32) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		for p := base; p <= uint64(group); p *= base {
			if p == uint64(group) {
				return true
			}
		}
	}
	return false
}

// span is the blocks from start up to, not including, end.
type span struct{ start, end uint64 }

// allocator hands out blocks upwards only, stepping over the copies. It may
// run past the end of the file system; the caller compares.
type allocator struct {
	reserved []span
	next     uint64
	used     []span
}

// skip moves next out of the copies, so that n blocks from there are clear.
func (a *allocator) skip(n uint64) {
	for len(a.reserved) > 0 && a.next+n > a.reserved[0].start {
		a.next = max(a.next, a.reserved[0].end)
		a.take(a.reserved[0])
		a.reserved = a.reserved[1:]
	}
}

func (a *allocator) take(s span) {
	if n := len(a.used); n > 0 && a.used[n-1].end == s.start {
		a.used[n-1].end = s.end
		return
	}
	a.used = append(a.used, s)
}

// contiguous allocates n blocks in one run.
func (a *allocator) contiguous(n uint64) uint64 {
	a.skip(n)
	start := a.next
	a.take(span{start, start + n})
	a.next += n
	return start
}

// scattered allocates n blocks, broken only by the copies.
func (a *allocator) scattered(n uint64) uint64 {
	a.skip(1)
	start := a.next
	for n > 0 {
		a.skip(1)
		step := n
		if len(a.reserved) > 0 {
			step = min(step, a.reserved[0].start-a.next)
		}
		a.take(span{a.next, a.next + step})
		a.next += step
		n -= step
	}
	return start
}

// finish marks the copies that lie in free space.
func (a *allocator) finish() {
	for _, r := range a.reserved {
		a.take(r)
	}
	a.reserved = nil
}

// nextReserved finds the first copy that ends after a block.
func (g *geometry) nextReserved(block uint64) (span, bool) {
	i, _ := slices.BinarySearchFunc(g.reserved, block, func(s span, b uint64) int {
		if s.end <= b {
			return -1
		}
		return 1
	})
	if i == len(g.reserved) {
		return span{}, false
	}
	return g.reserved[i], true
}
