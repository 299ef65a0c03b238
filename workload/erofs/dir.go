package erofs

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const direntBytes = 12

// fileType is the dirent's type, indexed by rootfs.Kind.
var fileType = [...]byte{rootfs.Regular: 1, rootfs.Directory: 2, rootfs.CharDevice: 3, rootfs.BlockDevice: 4, rootfs.FIFO: 5, rootfs.Symlink: 7}

// withDots adds "." and "..", which stand where their names sort: the kernel
// searches by bisection.
func withDots(entries []rootfs.Entry) []rootfs.Entry {
	all := append(slices.Clone(entries), rootfs.Entry{Name: "."}, rootfs.Entry{Name: ".."})
	slices.SortFunc(all, func(a, b rootfs.Entry) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// dirBlocks cuts the entries into blocks and says how much of each is used.
func dirBlocks(entries []rootfs.Entry, emit func(part []rootfs.Entry, used int)) {
	start, used := 0, 0
	for i, e := range entries {
		n := direntBytes + len(e.Name)
		if used+n > blockSize {
			emit(entries[start:i], used)
			start, used = i, 0
		}
		used += n
	}
	emit(entries[start:], used)
}

func dirSize(children []rootfs.Entry) (size uint64) {
	dirBlocks(withDots(children), func(_ []rootfs.Entry, used int) {
		size = blocksFor(size)*blockSize + uint64(used)
	})
	return size
}

// dirContent is a directory's data, in.size bytes.
func (l *Layout) dirContent(in *inode) []byte {
	var out []byte
	dirBlocks(withDots(in.node.Children()), func(part []rootfs.Entry, used int) {
		out = append(out, make([]byte, -len(out)&(blockSize-1))...)
		base := len(out)
		out = append(out, make([]byte, used)...)
		b := out[base:]
		name := direntBytes * len(part)
		for i, e := range part {
			nid, kind := l.target(in, e)
			d := b[direntBytes*i:]
			binary.LittleEndian.PutUint64(d, nid)
			binary.LittleEndian.PutUint16(d[8:], uint16(name))
			d[10] = kind
			name += copy(b[name:], e.Name)
		}
	})
	return out
}

// target is what an entry of a directory points to.
func (l *Layout) target(in *inode, e rootfs.Entry) (nid uint64, kind byte) {
	switch {
	case e.Node != nil:
		return l.inodes[e.Node.Index()].nid, fileType[e.Node.Kind]
	case e.Name == ".":
		return in.nid, fileType[rootfs.Directory]
	}
	return l.inodes[in.parent].nid, fileType[rootfs.Directory]
}
