package btrfs

import (
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// modeType is S_IFMT, indexed by rootfs.Kind.
var modeType = [...]uint32{rootfs.Regular: 0o100000, rootfs.Directory: 0o040000, rootfs.Symlink: 0o120000,
	rootfs.CharDevice: 0o020000, rootfs.BlockDevice: 0o060000, rootfs.FIFO: 0o010000}

func (l *Layout) inodeItem(slot int32, put putFunc) error {
	n := l.inodes[slot].node
	links := n.Links
	if n.Kind == rootfs.Directory {
		links = 1
	}
	size, disk := sizes(n)
	return put(key{inoOf(slot), inodeItem, 0}, inodeRecord(l.buf[:0], attributes{
		size: size, disk: disk, links: links, uid: n.UID, gid: n.GID,
		mode: modeType[n.Kind] | uint32(n.Perm), device: uint64(n.Major)<<20 | uint64(n.Minor), at: stamp(n.ModTime()),
	}))
}

// sizes are a node's length, and the bytes that its data takes.
func sizes(n *rootfs.Node) (size, disk uint64) {
	switch n.Kind {
	case rootfs.Directory:
		for _, e := range n.Children() {
			size += 2 * uint64(len(e.Name))
		}
	case rootfs.Symlink:
		size = uint64(len(n.Target()))
		disk = size
	case rootfs.Regular:
		size = uint64(n.Size)
		if isInline(n) {
			return size, size
		}
		for _, r := range dataRuns(n) {
			disk += r.length
		}
	}
	return size, disk
}

// attributes are what an INODE_ITEM holds that is not the same for all.
type attributes struct {
	size, disk     uint64
	links          uint32
	uid, gid, mode uint32
	device, flags  uint64
	at             timestamp // of access, change, modification and birth
}

func inodeRecord(r record, a attributes) record {
	r = r.u64(generation, generation, a.size, a.disk, 0).u32(a.links).u32(a.uid).u32(a.gid).u32(a.mode)
	r = r.u64(a.device, a.flags, 0).zeros(32)
	return r.time(a.at).time(a.at).time(a.at).time(a.at)
}

func stamp(t time.Time) timestamp { return timestamp{t.Unix(), uint32(t.Nanosecond())} }
