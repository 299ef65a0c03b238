package btrfs

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// fileType is the type in a directory's item, indexed by rootfs.Kind.
var fileType = [...]uint8{rootfs.Regular: 1, rootfs.Directory: 2, rootfs.CharDevice: 3, rootfs.BlockDevice: 4, rootfs.FIFO: 5, rootfs.Symlink: 7}

// xattrType is that of an extended attribute, which has the same kind of item.
const xattrType = 8

// dirRecord is what DIR_ITEM, DIR_INDEX and XATTR_ITEM have in common.
func dirRecord(r record, target key, kind uint8, name string, value []byte) record {
	return r.key(target).u64(generation).u16(uint16(len(value))).u16(uint16(len(name))).u8(kind).text(name).bytes(value)
}

// hashed is something that stands under the hash of its name, with whatever
// else has the same.
type hashed struct {
	hash uint64
	pos  int32
}

// eachHash gives the places of all that have one hash, hash after hash.
func eachHash(all []hashed, f func(hash uint64, same []hashed) error) error {
	slices.SortFunc(all, func(a, b hashed) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.pos, b.pos)) })
	for len(all) > 0 {
		n := sort.Search(len(all), func(i int) bool { return all[i].hash > all[0].hash })
		if err := f(all[0].hash, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// putAll puts one item of all that have the same hash. Names can be chosen so
// that they are more than an item holds; the kernel refuses the last of them.
func (l *Layout) putAll(k key, same []hashed, put putFunc, add func(r record, pos int32) record) error {
	r := record(l.buf[:0])
	for _, s := range same {
		if r = add(r, s.pos); len(r) > maxItem {
			return fmt.Errorf("%d names have the hash %#x, and BTRFS holds %d bytes of them", len(same), s.hash, maxItem)
		}
	}
	return put(k, r)
}

// entries puts a directory's children, by hash for looking up and by index for
// listing.
func (l *Layout) entries(slot int32, put putFunc) error {
	children := l.inodes[slot].node.Children()
	all := make([]hashed, len(children))
	for i, c := range children {
		all[i] = hashed{nameHash(c.Name), int32(i)}
	}
	err := eachHash(all, func(h uint64, same []hashed) error {
		return l.putAll(key{inoOf(slot), dirItem, h}, same, put, func(r record, pos int32) record {
			return l.entry(r, children[pos])
		})
	})
	if err != nil {
		return err
	}
	for i, c := range children {
		if err := put(key{inoOf(slot), dirIndex, indexOf(int32(i))}, l.entry(l.buf[:0], c)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) entry(r record, e rootfs.Entry) record {
	return dirRecord(r, key{inoOf(l.slot(e.Node)), inodeItem, 0}, fileType[e.Node.Kind], e.Name, nil)
}

// names puts what leads from an inode to its names: one INODE_REF for each
// directory that has some, and an INODE_EXTREF for each that did not fit there.
func (l *Layout) names(slot int32, put putFunc) error {
	if slot == 0 {
		return put(key{firstInode, inodeRef, firstInode}, record(l.buf[:0]).u64(0).u16(2).text(".."))
	}
	links := l.linksOf(slot)
	var rest []link
	for len(links) > 0 {
		n := sort.Search(len(links), func(i int) bool { return links[i].parent > links[0].parent })
		r := record(l.buf[:0])
		for _, k := range links[:n] {
			name := l.nameOf(k)
			if len(r)+10+len(name) > maxItem {
				rest = append(rest, k)
				continue
			}
			r = r.u64(indexOf(k.pos)).u16(uint16(len(name))).text(name)
		}
		if err := put(key{inoOf(slot), inodeRef, inoOf(links[0].parent)}, r); err != nil {
			return err
		}
		links = links[n:]
	}
	return l.moreNames(slot, rest, put)
}

func (l *Layout) moreNames(slot int32, links []link, put putFunc) error {
	all := make([]hashed, len(links))
	for i, k := range links {
		all[i] = hashed{hash(uint32(inoOf(k.parent)), l.nameOf(k)), int32(i)}
	}
	return eachHash(all, func(h uint64, same []hashed) error {
		return l.putAll(key{inoOf(slot), inodeExtref, h}, same, put, func(r record, pos int32) record {
			name := l.nameOf(links[pos])
			return r.u64(inoOf(links[pos].parent), indexOf(links[pos].pos)).u16(uint16(len(name))).text(name)
		})
	})
}

func (l *Layout) nameOf(k link) string { return l.inodes[k.parent].node.Children()[k.pos].Name }

// linksOf are an inode's names, those of one directory together.
func (l *Layout) linksOf(slot int32) []link {
	in := &l.inodes[slot]
	if in.node.Kind == rootfs.Directory || in.node.Links == 1 {
		return []link{{slot, in.parent, in.pos}}
	}
	from, _ := slices.BinarySearchFunc(l.links, slot, func(k link, slot int32) int { return cmp.Compare(k.slot, slot) })
	return l.links[from : from+int(in.node.Links)]
}
