package ext4

import (
	"encoding/binary"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	fastSymlink  = 60 // targets shorter than this live in the inode
	flagIndexed  = 0x1000
	flagExtents  = 0x80000
	iBlockOff    = 40
	iBlockLen    = 60
	inodeCsumLo  = 0x7C
	inodeCsumHi  = 0x82
	secsPerBlock = blockSize / 512
)

// modeType is S_IFMT, indexed by rootfs.Kind.
var modeType = [...]uint16{rootfs.Regular: 0x8000, rootfs.Directory: 0x4000, rootfs.Symlink: 0xA000,
	rootfs.CharDevice: 0x2000, rootfs.BlockDevice: 0x6000, rootfs.FIFO: 0x1000}

// putInode writes the inode of a slot into 256 zero bytes.
func (l *Layout) putInode(b []byte, slot int32) {
	le := binary.LittleEndian
	in := &l.inodes[slot]
	n := in.node
	le.PutUint16(b[0:], modeType[n.Kind]|n.Perm)
	putSplit16(b, 2, 0x78, n.UID)
	putSplit16(b, 0x18, 0x7A, n.GID)
	le.PutUint16(b[0x1A:], in.links())
	mtime := n.ModTime()
	if n == l.lpf && l.synthesized() {
		mtime = l.opts.Time
	}
	l.putTimes(b, mtime)
	l.putSize(b, in)
	putBlockCount(b, in)
	l.putBlocks(b, slot, in)
	if in.hasXattr {
		le.PutUint32(b[0x68:], uint32(in.xattr))
		le.PutUint16(b[0x76:], uint16(in.xattr>>32))
	}
	if attrs, _, _ := splitXattrs(n); len(attrs) > 0 { // Plan has refused errors
		body := b[128+extraIsize:]
		le.PutUint32(body, xattrMagic)
		putAttrs(body[4:], attrs, 0, false)
	}
	l.sealInode(b, inoOf(slot))
}

// synthesized tells whether lost+found is ours and not the image's.
func (l *Layout) synthesized() bool { return l.tree.Lookup("/"+lostFound) == nil }

func (in *inode) links() uint16 {
	if in.node.Kind != rootfs.Directory {
		return uint16(in.node.Links)
	}
	if in.subdirs+2 >= maxLinks {
		return 1 // dir_nlink: too many to count
	}
	return uint16(in.subdirs + 2)
}

func putSplit16(b []byte, lo, hi int, v uint32) {
	binary.LittleEndian.PutUint16(b[lo:], uint16(v))
	binary.LittleEndian.PutUint16(b[hi:], uint16(v>>16))
}

// putTimes sets access, change and modification time to t; tar has no others
// that matter, and they must not depend on the day of the build.
func (l *Layout) putTimes(b []byte, t time.Time) {
	for _, off := range [][2]int{{0x08, 0x8C}, {0x0C, 0x84}, {0x10, 0x88}} {
		putTime(b, off[0], off[1], t)
	}
	putTime(b, 0x90, 0x94, l.opts.Time)
	binary.LittleEndian.PutUint16(b[0x80:], extraIsize)
}

// putTime writes 34 bits of seconds around 1970 to 2446 and 30 of nanoseconds;
// times out of range become the nearest, as in the kernel.
func putTime(b []byte, lo, extra int, t time.Time) {
	sec, nsec := t.Unix(), uint32(t.Nanosecond())
	const first, last = -1 << 31, 1<<34 - 1<<31 - 1
	if sec < first {
		sec, nsec = first, 0
	} else if sec > last {
		sec, nsec = last, 0
	}
	epoch := uint32((sec-int64(int32(sec)))>>32) & 3
	binary.LittleEndian.PutUint32(b[lo:], uint32(sec))
	binary.LittleEndian.PutUint32(b[extra:], nsec<<2|epoch)
}

func (l *Layout) putSize(b []byte, in *inode) {
	var size int64
	switch in.node.Kind {
	case rootfs.Regular:
		size = in.node.Size
	case rootfs.Directory:
		size = int64(in.blocks) * blockSize
	case rootfs.Symlink:
		size = int64(len(in.node.Target()))
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(size))
	binary.LittleEndian.PutUint32(b[0x6C:], uint32(size>>32))
}

func putBlockCount(b []byte, in *inode) {
	blocks := uint64(in.blocks) + uint64(in.treeBlocks)
	if in.hasXattr {
		blocks++
	}
	binary.LittleEndian.PutUint32(b[0x1C:], uint32(blocks*secsPerBlock))
	binary.LittleEndian.PutUint16(b[0x74:], uint16(blocks*secsPerBlock>>32))
}

// putBlocks fills the 60 bytes that say where, or what, the content is.
func (l *Layout) putBlocks(b []byte, slot int32, in *inode) {
	le := binary.LittleEndian
	iblock := b[iBlockOff : iBlockOff+iBlockLen]
	n := in.node
	switch n.Kind {
	case rootfs.CharDevice, rootfs.BlockDevice:
		if n.Major < 256 && n.Minor < 256 {
			le.PutUint32(iblock, n.Major<<8|n.Minor)
		} else {
			le.PutUint32(iblock[4:], n.Minor&0xff|n.Major<<8|n.Minor&^0xff<<12)
		}
		return
	case rootfs.FIFO:
		return
	case rootfs.Symlink:
		if in.blocks == 0 {
			copy(iblock, n.Target())
			return
		}
	}
	flags := uint32(flagExtents)
	if n.Kind == rootfs.Directory && !oneBlock(l.children(n)) {
		flags |= flagIndexed
	}
	le.PutUint32(b[0x20:], flags)
	l.extentBlocks(in, inoOf(slot), iblock)
}

// extentBlocks writes an inode's extent root and returns the blocks below it.
func (l *Layout) extentBlocks(in *inode, ino uint32, root []byte) []byte {
	return extentTree(l.extents(in.data, in.runs()), in.tree, l.inodeSeed(ino), root)
}

// runs are the logical blocks that have data.
func (in *inode) runs() []blockRun {
	if in.node != nil && in.node.Kind == rootfs.Regular {
		return dataBlocks(in.node)
	}
	return []blockRun{{0, in.blocks}}
}

// putJournalInode writes inode 8.
func (l *Layout) putJournalInode(b []byte) {
	le := binary.LittleEndian
	le.PutUint16(b[0:], 0x8000|0o600)
	le.PutUint16(b[0x1A:], 1)
	l.putTimes(b, l.opts.Time)
	size := uint64(l.journal.blocks) * blockSize
	le.PutUint32(b[4:], uint32(size))
	le.PutUint32(b[0x6C:], uint32(size>>32))
	putBlockCount(b, &l.journal)
	le.PutUint32(b[0x20:], flagExtents)
	l.extentBlocks(&l.journal, journalIno, b[iBlockOff:iBlockOff+iBlockLen])
	l.sealInode(b, journalIno)
}

// sealInode sets the checksum, last.
func (l *Layout) sealInode(b []byte, ino uint32) {
	putSplit16(b, inodeCsumLo, inodeCsumHi, crc(l.inodeSeed(ino), b[:inodeSize]))
}
