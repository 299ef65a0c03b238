package btrfs

import (
	"encoding/binary"
	"errors"
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
		if x.Name == "system.posix_acl_access" || x.Name == "system.posix_acl_default" {
			if err := checkACL(x.Value); err != nil {
				return fmt.Errorf("attribute %q: %w", x.Name, err)
			}
		}
	}
	return nil
}

// checkACL refuses what the kernel would not read back: it stores ACLs in the
// form that programs give them in, and the file would be out of reach.
func checkACL(v []byte) error {
	if len(v) < 4 || len(v)%8 != 4 || binary.LittleEndian.Uint32(v) != 2 {
		return errors.New("not a POSIX ACL, version 2")
	}
	for e := v[4:]; len(e) > 0; e = e[8:] {
		switch binary.LittleEndian.Uint16(e) {
		case 0x01, 0x02, 0x04, 0x08, 0x10, 0x20: // owner, users, group, groups, mask, others
		default:
			return errors.New("POSIX ACL with an unknown tag")
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
