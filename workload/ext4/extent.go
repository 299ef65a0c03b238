package ext4

import "encoding/binary"

const (
	maxExtentLen   = 1 << 15
	inodeExtents   = 4
	blockExtents   = (blockSize - 12 - 4) / 12 // header and checksum
	extentMagic    = 0xF30A
	extentTailOff  = 12 + 12*blockExtents
	extentHeadSize = 12
)

// extent maps count logical blocks to neighbouring physical ones.
type extent struct {
	logical  uint32
	count    uint32
	physical uint64
}

// eachExtent works out where runs lie if their data starts at a block.
func (l *Layout) eachExtent(data uint64, runs []blockRun, emit func(extent) error) error {
	for _, run := range runs {
		for run.count > 0 {
			n := min(run.count, maxExtentLen)
			if r, ok := l.nextReserved(data); ok {
				if data >= r.start {
					data = r.end
					continue
				}
				n = uint32(min(uint64(n), r.start-data))
			}
			if err := emit(extent{run.first, n, data}); err != nil {
				return err
			}
			run.first += n
			run.count -= n
			data += uint64(n)
		}
	}
	return nil
}

func (l *Layout) countExtents(data uint64, runs []blockRun) (n int) {
	_ = l.eachExtent(data, runs, func(extent) error { n++; return nil })
	return n
}

func (l *Layout) extents(data uint64, runs []blockRun) (out []extent) {
	_ = l.eachExtent(data, runs, func(e extent) error { out = append(out, e); return nil })
	return out
}

// treeBlocks is how many blocks a tree of n extents needs outside the inode.
func treeBlocks(n int) (blocks uint32) {
	for n > inodeExtents {
		n = (n + blockExtents - 1) / blockExtents
		blocks += uint32(n)
	}
	return blocks
}

// extentTree writes the tree: root is the inode's 60 bytes, the result is the
// blocks from tree on, leaves first. seed is the inode's checksum seed.
func extentTree(exts []extent, tree uint64, seed uint32, root []byte) (blocks []byte) {
	level := make([][12]byte, len(exts))
	firsts := make([]uint32, len(exts))
	for i, e := range exts {
		le := binary.LittleEndian
		le.PutUint32(level[i][0:], e.logical)
		le.PutUint16(level[i][4:], uint16(e.count))
		le.PutUint16(level[i][6:], uint16(e.physical>>32))
		le.PutUint32(level[i][8:], uint32(e.physical))
		firsts[i] = e.logical
	}
	depth := uint16(0)
	for len(level) > inodeExtents {
		var up [][12]byte
		var upFirsts []uint32
		for i := 0; i < len(level); i += blockExtents {
			part := level[i:min(i+blockExtents, len(level))]
			block := make([]byte, blockSize)
			putExtentNode(block, part, blockExtents, depth)
			binary.LittleEndian.PutUint32(block[extentTailOff:], crc(seed, block[:extentTailOff]))
			at := tree + uint64(len(blocks)/blockSize)
			up = append(up, indexEntry(firsts[i], at))
			upFirsts = append(upFirsts, firsts[i])
			blocks = append(blocks, block...)
		}
		level, firsts = up, upFirsts
		depth++
	}
	putExtentNode(root, level, inodeExtents, depth)
	return blocks
}

func indexEntry(first uint32, block uint64) (e [12]byte) {
	binary.LittleEndian.PutUint32(e[0:], first)
	binary.LittleEndian.PutUint32(e[4:], uint32(block))
	binary.LittleEndian.PutUint16(e[8:], uint16(block>>32))
	return e
}

func putExtentNode(b []byte, entries [][12]byte, limit int, depth uint16) {
	binary.LittleEndian.PutUint16(b[0:], extentMagic)
	binary.LittleEndian.PutUint16(b[2:], uint16(len(entries)))
	binary.LittleEndian.PutUint16(b[4:], uint16(limit))
	binary.LittleEndian.PutUint16(b[6:], depth)
	for i, e := range entries {
		copy(b[extentHeadSize+12*i:], e[:])
	}
}
