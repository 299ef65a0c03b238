package ext4

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	dirTail      = 12 // checksum, dressed as an unused entry
	leafSpace    = blockSize - dirTail
	dotsSpace    = 24
	dxRootOff    = 32 // first index entry of the root block
	dxNodeOff    = 8
	dxRootLimit  = (blockSize - dxRootOff - 8) / 8
	dxNodeLimit  = (blockSize - dxNodeOff - 8) / 8
	dirTailType  = 0xDE
	hashHalfMD4  = 1
	dxInfoLength = 8
)

// dirEntry is a name on disk.
type dirEntry struct {
	name  string
	ino   uint32
	kind  byte
	hash  uint32
	minor uint32 // the hash's other half, for those that share the first
}

func (e dirEntry) space() int { return direntSpace(len(e.name)) }

func direntSpace(nameLen int) int { return 8 + pad4(nameLen) }

// dirType is the file type byte, indexed by rootfs.Kind.
var dirType = [...]byte{rootfs.Regular: 1, rootfs.Directory: 2, rootfs.CharDevice: 3, rootfs.BlockDevice: 4, rootfs.FIFO: 5, rootfs.Symlink: 7}

// oneBlock tells whether the entries fit in a block with "." and "..".
func oneBlock(entries []rootfs.Entry) bool {
	space := dotsSpace
	for _, e := range entries {
		if space += direntSpace(len(e.Name)); space > leafSpace {
			return false
		}
	}
	return true
}

func (l *Layout) dirBlockCount(entries []rootfs.Entry) (uint32, error) {
	if oneBlock(entries) {
		return 1, nil
	}
	leaves := l.dirLeaves(entries)
	nodes := dxNodes(len(leaves))
	if nodes > dxRootLimit {
		return 0, fmt.Errorf("directory has %d entries; ext4 without large_dir holds fewer", len(entries))
	}
	return uint32(1 + nodes + len(leaves)), nil
}

// dxNodes is how many index blocks are needed below the root.
func dxNodes(leaves int) int {
	if leaves <= dxRootLimit {
		return 0
	}
	return (leaves + dxNodeLimit - 1) / dxNodeLimit
}

// dirLeaves sorts the entries by hash and packs them into blocks.
func (l *Layout) dirLeaves(children []rootfs.Entry) [][]dirEntry {
	entries := make([]dirEntry, len(children))
	for i, c := range children {
		entries[i] = l.dirEntry(c)
		entries[i].hash, entries[i].minor = hashName(l.opts.HashSeed, c.Name)
	}
	slices.SortFunc(entries, func(a, b dirEntry) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Or(cmp.Compare(a.minor, b.minor), cmp.Compare(a.name, b.name))
	})
	var leaves [][]dirEntry
	start, space := 0, 0
	for i, e := range entries {
		if space+e.space() > leafSpace {
			leaves = append(leaves, entries[start:i])
			start, space = i, 0
		}
		space += e.space()
	}
	return append(leaves, entries[start:])
}

func (l *Layout) dirEntry(c rootfs.Entry) dirEntry {
	return dirEntry{name: c.Name, ino: inoOf(l.slot(c.Node)), kind: dirType[c.Node.Kind]}
}

// dirBlocks writes a whole directory.
func (l *Layout) dirBlocks(slot int32) []byte {
	in := &l.inodes[slot]
	seed := l.inodeSeed(inoOf(slot))
	out := make([]byte, int(in.blocks)*blockSize)
	dots := []dirEntry{{name: ".", ino: inoOf(slot), kind: 2}, {name: "..", ino: inoOf(in.parent), kind: 2}}
	children := l.children(in.node)
	if oneBlock(children) {
		for _, c := range children {
			dots = append(dots, l.dirEntry(c))
		}
		putLeaf(out[:blockSize], dots, seed)
		for b := out[blockSize:]; len(b) > 0; b = b[blockSize:] {
			putLeaf(b[:blockSize], nil, seed) // room in lost+found
		}
		return out
	}
	leaves := l.dirLeaves(children)
	nodes := dxNodes(len(leaves))
	for i, leaf := range leaves {
		at := (1 + nodes + i) * blockSize
		putLeaf(out[at:at+blockSize], leaf, seed)
	}
	putIndex(out, dots, leaves, nodes, seed)
	return out
}

// putLeaf writes entries into a block; the last one takes the space left.
func putLeaf(b []byte, entries []dirEntry, seed uint32) {
	pos, last := 0, 0
	for _, e := range entries {
		last = pos
		pos += putDirent(b[pos:], e, e.space())
	}
	// An empty block is one unused entry.
	binary.LittleEndian.PutUint16(b[last+4:], uint16(leafSpace-last))
	tail := b[leafSpace:]
	binary.LittleEndian.PutUint16(tail[4:], dirTail)
	tail[7] = dirTailType
	binary.LittleEndian.PutUint32(tail[8:], crc(seed, b[:leafSpace]))
}

func putDirent(b []byte, e dirEntry, space int) int {
	binary.LittleEndian.PutUint32(b[0:], e.ino)
	binary.LittleEndian.PutUint16(b[4:], uint16(space))
	b[6], b[7] = byte(len(e.name)), e.kind
	copy(b[8:], e.name)
	return space
}

// dxEntry is a place in the index: hashes from hash on are at block.
type dxEntry struct{ hash, block uint32 }

// putIndex writes the index root (block 0) and the nodes below it (from 1).
func putIndex(out []byte, dots []dirEntry, leaves [][]dirEntry, nodes int, seed uint32) {
	root := out[:blockSize]
	putDirent(root, dots[0], 12)
	putDirent(root[12:], dots[1], blockSize-12)
	root[28], root[29] = hashHalfMD4, dxInfoLength
	entries := make([]dxEntry, len(leaves))
	for i, leaf := range leaves {
		entries[i] = dxEntry{leaf[0].hash, uint32(1 + nodes + i)}
		if i > 0 && leaves[i-1][len(leaves[i-1])-1].hash == leaf[0].hash {
			entries[i].hash |= 1 // same hash goes on from the leaf before
		}
	}
	if nodes == 0 {
		putDX(root, dxRootOff, dxRootLimit, entries, seed)
		return
	}
	root[30] = 1 // levels below the root
	var top []dxEntry
	for i := range nodes {
		part := entries[i*dxNodeLimit : min((i+1)*dxNodeLimit, len(entries))]
		node := out[(1+i)*blockSize : (2+i)*blockSize]
		binary.LittleEndian.PutUint16(node[4:], blockSize)
		putDX(node, dxNodeOff, dxNodeLimit, part, seed)
		top = append(top, dxEntry{part[0].hash, uint32(1 + i)})
	}
	putDX(root, dxRootOff, dxRootLimit, top, seed)
}

func putDX(b []byte, off, limit int, entries []dxEntry, seed uint32) {
	le := binary.LittleEndian
	for i, e := range entries {
		le.PutUint32(b[off+8*i:], e.hash)
		le.PutUint32(b[off+8*i+4:], e.block)
	}
	// The first entry's hash is implied; limit and count stand there.
	le.PutUint16(b[off:], uint16(limit))
	le.PutUint16(b[off+2:], uint16(len(entries)))
	sum := crc(seed, b[:off+8*len(entries)])
	sum = crc(sum, make([]byte, 8)) // the reserved half of the tail, and the checksum as zero
	le.PutUint32(b[off+8*limit+4:], sum)
}
