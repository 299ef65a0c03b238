package ext4

import (
	"encoding/binary"
	"math/bits"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// Feature bits, Documentation/filesystems/ext4/super.rst.
const (
	compatJournal   = 0x4
	compatXattr     = 0x8
	compatDirIndex  = 0x20
	incompatFeature = 0x2 | 0x40 | 0x80 | 0x200             // filetype, extents, 64bit, flex_bg
	roCompatFeature = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400 // sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
	mountOptions    = 0x4 | 0x8                             // user_xattr, acl
	errorsReadOnly  = 2                                     // a damaged root must not be written on
	flexGroupLog2   = 4                                     // as mke2fs; only guides the kernel's allocator
	superOffset     = 1024                                  // in the first block
	superSize       = 1024                                  //
	superCsumOff    = superSize - 4                         //
	inodeZeroed     = 0x4                                   // group flag: nothing for the kernel to zero lazily
	unsignedHash    = 0x2                                   // s_flags: names hash as unsigned char
	journalBackup   = 1                                     // s_jnl_blocks is valid
	superMagic      = 0xEF53                                //
)

// super returns the superblock as it stands in a group.
func (l *Layout) super(group uint32) []byte {
	b := make([]byte, superSize)
	le := binary.LittleEndian
	free := l.freeBlocks()
	le.PutUint32(b[0x00:], l.groups*l.inodesPerGroup)
	le.PutUint32(b[0x04:], uint32(l.blocks))
	le.PutUint32(b[0x150:], uint32(l.blocks>>32))
	le.PutUint32(b[0x0C:], uint32(free))
	le.PutUint32(b[0x158:], uint32(free>>32))
	le.PutUint32(b[0x10:], l.groups*l.inodesPerGroup-l.lastIno())
	le.PutUint32(b[0x18:], uint32(bits.TrailingZeros(blockSize))-10)
	le.PutUint32(b[0x1C:], uint32(bits.TrailingZeros(blockSize))-10)
	le.PutUint32(b[0x20:], l.blocksPerGroup)
	le.PutUint32(b[0x24:], l.blocksPerGroup)
	le.PutUint32(b[0x28:], l.inodesPerGroup)
	le.PutUint16(b[0x36:], 0xFFFF) // no check after so many mounts
	le.PutUint16(b[0x38:], superMagic)
	le.PutUint16(b[0x3A:], 1) // clean
	le.PutUint16(b[0x3C:], errorsReadOnly)
	le.PutUint32(b[0x4C:], 1) // dynamic revision
	le.PutUint32(b[0x54:], firstFreeIno)
	le.PutUint16(b[0x58:], inodeSize)
	le.PutUint16(b[0x5A:], uint16(group))
	le.PutUint32(b[0x5C:], l.compat())
	le.PutUint32(b[0x60:], incompatFeature)
	le.PutUint32(b[0x64:], roCompatFeature)
	copy(b[0x68:], l.opts.UUID[:])
	copy(b[0x78:0x88], l.opts.Label)
	copy(b[0xEC:], l.opts.HashSeed[:])
	b[0xFC] = hashHalfMD4
	le.PutUint16(b[0xFE:], descSize)
	le.PutUint32(b[0x100:], mountOptions)
	le.PutUint16(b[0x15C:], extraIsize)
	le.PutUint16(b[0x15E:], extraIsize)
	le.PutUint32(b[0x160:], unsignedHash)
	b[0x174] = flexGroupLog2
	b[0x175] = 1 // crc32c
	l.putSuperTimes(b)
	l.putSuperJournal(b)
	le.PutUint32(b[superCsumOff:], crc(^uint32(0), b[:superCsumOff]))
	return b
}

func (l *Layout) compat() uint32 {
	if l.journal.blocks == 0 {
		return compatXattr | compatDirIndex
	}
	return compatXattr | compatDirIndex | compatJournal
}

// putSuperTimes sets the times of making, writing and checking.
func (l *Layout) putSuperTimes(b []byte) {
	sec := min(max(l.opts.Time.Unix(), 0), 1<<40-1)
	for _, off := range [][2]int{{0x30, 0x274}, {0x40, 0x277}, {0x108, 0x276}} {
		binary.LittleEndian.PutUint32(b[off[0]:], uint32(sec))
		b[off[1]] = byte(sec >> 32)
	}
}

// putSuperJournal names the journal's inode and keeps a copy of it.
func (l *Layout) putSuperJournal(b []byte) {
	if l.journal.blocks == 0 {
		return
	}
	le := binary.LittleEndian
	le.PutUint32(b[0xE0:], journalIno)
	b[0xFD] = journalBackup
	l.extentBlocks(&l.journal, journalIno, b[0x10C:0x10C+iBlockLen])
	size := uint64(l.journal.blocks) * blockSize
	le.PutUint32(b[0x10C+iBlockLen:], uint32(size>>32))
	le.PutUint32(b[0x10C+iBlockLen+4:], uint32(size))
}

func (l *Layout) lastIno() uint32 { return inoOf(int32(len(l.inodes) - 1)) }

// usedInodes is how many of a group's inodes are taken; they are the first.
func (l *Layout) usedInodes(group uint32) uint32 {
	first := group * l.inodesPerGroup
	if l.lastIno() <= first {
		return 0
	}
	return min(l.lastIno()-first, l.inodesPerGroup)
}

// descriptors is the group descriptor table.
func (l *Layout) descriptors() []byte {
	out := make([]byte, int(l.gdtBlocks)*blockSize)
	dirs := make([]uint16, l.groups)
	for slot := range l.inodes {
		if l.inodes[slot].node.Kind == rootfs.Directory {
			dirs[(inoOf(int32(slot))-1)/l.inodesPerGroup]++
		}
	}
	bitmap := make([]byte, blockSize)
	for g := range l.groups {
		d := out[g*descSize : (g+1)*descSize]
		l.putDescriptor(d, g, bitmap)
		binary.LittleEndian.PutUint16(d[0x10:], dirs[g])
		seed := crc32le(l.fsSeed(), g)
		binary.LittleEndian.PutUint16(d[0x1E:], uint16(crc(seed, d)))
	}
	return out
}

func (l *Layout) putDescriptor(d []byte, g uint32, bitmap []byte) {
	le := binary.LittleEndian
	put64 := func(lo, hi int, v uint64) {
		le.PutUint32(d[lo:], uint32(v))
		le.PutUint32(d[hi:], uint32(v>>32))
	}
	put64(0x00, 0x20, l.blockBitmaps+uint64(g))
	put64(0x04, 0x24, l.inodeBitmaps+uint64(g))
	put64(0x08, 0x28, l.inodeTables[g])
	freeInodes := l.inodesPerGroup - l.usedInodes(g)
	le.PutUint16(d[0x0E:], uint16(freeInodes))
	le.PutUint16(d[0x12:], inodeZeroed)
	le.PutUint16(d[0x1C:], uint16(freeInodes)) // at the table's end, never used
	le.PutUint16(d[0x0C:], uint16(l.blockBitmap(bitmap, g)))
	putSplit16(d, 0x18, 0x38, crc(l.fsSeed(), bitmap[:l.blocksPerGroup/8]))
	l.inodeBitmap(bitmap, g)
	putSplit16(d, 0x1A, 0x3A, crc(l.fsSeed(), bitmap[:l.inodesPerGroup/8]))
}
