package ext4

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	xattrMagic      = 0xEA020000
	xattrEntrySize  = 16
	xattrBlockHead  = 32
	xattrInodeSpace = inodeSize - 128 - extraIsize - 4 // after the magic
	xattrBlockSpace = blockSize - xattrBlockHead
)

// attr is an attribute as ext4 stores it: the namespace is a number.
type attr struct {
	index byte
	name  string
	value []byte
}

func (a attr) space() int { return xattrEntrySize + pad4(len(a.name)) + pad4(len(a.value)) }

func pad4(n int) int { return (n + 3) &^ 3 }

var xattrPrefixes = []struct {
	index  byte
	prefix string
}{{1, "user."}, {4, "trusted."}, {6, "security."}}

func toAttr(x rootfs.Xattr) (attr, error) {
	if err := x.CheckACL(); err != nil {
		return attr{}, err
	}
	switch x.Name {
	case "system.posix_acl_access":
		return attr{2, "", diskACL(x.Value)}, nil
	case "system.posix_acl_default":
		return attr{3, "", diskACL(x.Value)}, nil
	}
	for _, p := range xattrPrefixes {
		if rest, ok := strings.CutPrefix(x.Name, p.prefix); ok && rest != "" && len(rest) <= 255 {
			return attr{p.index, rest, x.Value}, nil
		}
	}
	return attr{}, errors.New("ext4 has no such namespace")
}

// diskACL turns the ACL that system calls use (version 2, every entry with an
// id) into ext4's own (version 1, ids only for named users and groups).
func diskACL(v []byte) []byte {
	out := []byte{1, 0, 0, 0}
	for e := v[4:]; len(e) > 0; e = e[8:] {
		out = append(out, e[:4]...)
		if tag := binary.LittleEndian.Uint16(e); tag == 0x02 || tag == 0x08 { // ACL_USER, ACL_GROUP
			out = append(out, e[4:8]...)
		}
	}
	return out
}

// splitXattrs says which attributes go into the inode and which into a block.
func splitXattrs(n *rootfs.Node) (inInode, inBlock []attr, err error) {
	inodeLeft, blockLeft := xattrInodeSpace-4, xattrBlockSpace-4 // end marks
	for _, x := range n.Xattrs() {
		a, err := toAttr(x)
		if err != nil {
			return nil, nil, fmt.Errorf("attribute %q: %w", x.Name, err)
		}
		if s := a.space(); s <= inodeLeft {
			inodeLeft -= s
			inInode = append(inInode, a)
		} else if s <= blockLeft {
			blockLeft -= s
			inBlock = append(inBlock, a)
		} else {
			return nil, nil, fmt.Errorf("attribute %q: the file's attributes are larger than ext4 holds (one block of 4096 bytes)", x.Name)
		}
	}
	// The kernel searches blocks assuming this order.
	slices.SortFunc(inBlock, func(a, b attr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	return inInode, inBlock, nil
}

// putAttrs writes entries from the front of b and values from its back;
// offsets count from base bytes before b. Hashes are for blocks only.
func putAttrs(b []byte, attrs []attr, base int, hashed bool) (blockHash uint32) {
	le := binary.LittleEndian
	pos, end := 0, len(b)
	for _, a := range attrs {
		e := b[pos:]
		e[0], e[1] = byte(len(a.name)), a.index
		if len(a.value) > 0 {
			end -= pad4(len(a.value))
			le.PutUint16(e[2:], uint16(end+base))
			copy(b[end:], a.value)
		}
		le.PutUint32(e[8:], uint32(len(a.value)))
		if hashed {
			h := attrHash(a)
			le.PutUint32(e[12:], h)
			blockHash = blockHash<<16 ^ blockHash>>16 ^ h
		}
		copy(e[xattrEntrySize:], a.name)
		pos += xattrEntrySize + pad4(len(a.name))
	}
	return blockHash
}

func attrHash(a attr) (h uint32) {
	for _, c := range []byte(a.name) {
		h = h<<5 ^ h>>27 ^ uint32(c)
	}
	padded := make([]byte, pad4(len(a.value)))
	copy(padded, a.value)
	for ; len(padded) > 0; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded)
	}
	return h
}

// xattrBlock is the attribute block of an inode, for its place on disk.
func (l *Layout) xattrBlock(attrs []attr, at uint64) []byte {
	b := make([]byte, blockSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], xattrMagic)
	le.PutUint32(b[4:], 1) // references
	le.PutUint32(b[8:], 1) // blocks
	le.PutUint32(b[12:], putAttrs(b[xattrBlockHead:], attrs, xattrBlockHead, true))
	seed := crc(l.fsSeed(), le.AppendUint64(nil, at))
	le.PutUint32(b[16:], crc(seed, b))
	return b
}
