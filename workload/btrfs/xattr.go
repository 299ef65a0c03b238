package btrfs

import (
	"fmt"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// maxXattr is how much name and value of an attribute may take together.
const maxXattr = maxItem - dirRecordBytes

const dirRecordBytes = 30

func checkXattrs(n *rootfs.Node) error {
	for _, x := range n.Xattrs() {
		if got := len(x.Name) + len(x.Value); got > maxXattr {
			return fmt.Errorf("attribute %q: name and value have %d bytes; BTRFS holds %d", x.Name, got, maxXattr)
		}
		if err := x.CheckACL(); err != nil {
			return fmt.Errorf("attribute %q: %w", x.Name, err)
		}
	}
	return nil
}

func (l *Layout) xattrs(slot int32, put putFunc) error {
	attrs := l.inodes[slot].node.Xattrs()
	if len(attrs) == 0 {
		return nil
	}
	all := make([]hashed, len(attrs))
	for i, x := range attrs {
		all[i] = hashed{nameHash(x.Name), int32(i)}
	}
	return eachHash(all, func(h uint64, same []hashed) error {
		return l.putAll(key{inoOf(slot), xattrItem, h}, same, put, func(r record, pos int32) record {
			return dirRecord(r, key{}, xattrType, attrs[pos].Name, attrs[pos].Value)
		})
	})
}
