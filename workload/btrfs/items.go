package btrfs

import "github.com/ccrun/ccrun/workload/rootfs"

// items puts all items of an inode; content is that of a file whose content is
// among them.
func (l *Layout) items(slot int32, content []byte, put putFunc) error {
	in := &l.inodes[slot]
	for _, step := range []func(int32, putFunc) error{l.inodeItem, l.names, l.xattrs, l.entries} {
		if err := step(slot, put); err != nil {
			return err
		}
	}
	switch {
	case in.node.Kind == rootfs.Symlink:
		return l.inlineItem(slot, []byte(in.node.Target()), put)
	case isInline(in.node):
		return l.inlineItem(slot, content, put)
	}
	return l.eachExtent(in, func(e extent) error { return l.extentData(slot, e, put) })
}
