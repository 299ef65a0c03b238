package erofs

import (
	"encoding/binary"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// Data layouts, fs/erofs/erofs_fs.h.
const (
	layoutPlain  = 0
	layoutInline = 2
	layoutChunks = 4
)

// modeType is S_IFMT, indexed by rootfs.Kind.
var modeType = [...]uint16{rootfs.Regular: 0x8000, rootfs.Directory: 0x4000, rootfs.Symlink: 0xA000,
	rootfs.CharDevice: 0x2000, rootfs.BlockDevice: 0x6000, rootfs.FIFO: 0x1000}

// putInode writes inode, attributes and block map into a slot; the space for
// inline data stays zero. It returns where that starts.
func (l *Layout) putInode(b []byte, in *inode) (inline int, err error) {
	le := binary.LittleEndian
	n := in.node
	le.PutUint16(b[0:], 1|in.layout()<<1) // extended
	le.PutUint16(b[4:], modeType[n.Kind]|n.Perm)
	le.PutUint64(b[8:], in.size)
	le.PutUint32(b[16:], l.unionField(in))
	le.PutUint32(b[20:], uint32(n.Index()+1))
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	mtime := n.ModTime()
	le.PutUint64(b[32:], uint64(mtime.Unix()))
	le.PutUint32(b[40:], uint32(mtime.Nanosecond()))
	links := n.Links
	if n.Kind == rootfs.Directory {
		links = in.subdirs + 2
	}
	le.PutUint32(b[44:], links)
	attrs, err := xattrBody(n)
	if err != nil {
		return 0, err
	}
	if len(attrs) > 0 {
		le.PutUint16(b[2:], uint16((len(attrs)-xattrHead)/4+1))
		copy(b[inodeBytes:], attrs)
	}
	end := inodeBytes + len(attrs)
	if in.sparse() {
		in.putMap(b[end:])
	}
	return end, nil
}

func (in *inode) layout() uint16 {
	switch {
	case in.sparse():
		return layoutChunks
	case in.inline:
		return layoutInline
	}
	return layoutPlain
}

// unionField is i_u: the first block, the device, or the chunk format.
func (l *Layout) unionField(in *inode) uint32 {
	n := in.node
	switch n.Kind {
	case rootfs.CharDevice, rootfs.BlockDevice:
		return n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12
	case rootfs.FIFO:
		return 0
	}
	if in.sparse() {
		return uint32(in.chunkBits)
	}
	if in.wholeBlocks() == 0 {
		return noBlock
	}
	return uint32(in.block)
}

// putMap writes a sparse file's map: a block for every chunk, or none.
func (in *inode) putMap(b []byte) {
	for i := range in.chunkCount() {
		binary.LittleEndian.PutUint32(b[4*i:], noBlock)
	}
	block := in.block
	for _, c := range in.chunks() {
		binary.LittleEndian.PutUint32(b[4*c.index:], uint32(block))
		block += c.blocks
	}
}
