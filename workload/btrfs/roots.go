package btrfs

import "encoding/binary"

// rootInodeFlag says that a root's flags have been set at all.
const rootInodeFlag = 1 << 31

// rootItems lists the trees, in the order of their numbers.
func (l *Layout) rootItems(put putFunc) error {
	r := &l.rest
	for _, step := range []func() error{
		func() error { return l.rootItem(&r.extents, put) },
		func() error { return l.rootItem(&r.devices, put) },
		func() error {
			return put(key{fsTree, inodeRef, rootTreeDir}, record(l.buf[:0]).u64(0).u16(7).text("default"))
		},
		func() error { return l.rootItem(l.fs, put) },
		func() error { return l.rootDir(put) },
		func() error { return l.rootItem(l.sums, put) },
		func() error { return l.rootItem(&r.uuids, put) },
		func() error { return l.rootItem(&r.free, put) },
		func() error { return l.rootItem(&r.reloc, put) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) rootItem(t *tree, put putFunc) error {
	a := attributes{size: 3, disk: nodeSize, links: 1, mode: 0o040755}
	var dir uint64
	var id [16]byte
	var made timestamp
	switch t.owner {
	case fsTree:
		a.flags, dir, id, made = rootInodeFlag, firstInode, l.ids.subvolume, stamp(l.opts.Time)
	case relocTree:
		dir = firstInode
	}
	at, level := t.root()
	r := inodeRecord(l.buf[:0], a).u64(generation, dir, at, 0, t.usedBytes(), 0, 0).u32(1)
	r = r.key(key{}).u8(0).u8(level).u64(generation).uuid(id).zeros(32).u64(0, 0, 0, 0)
	r = r.time(made).time(made).zeros(2*12 + 64)
	return put(key{t.owner, rootItem, 0}, r)
}

// rootDir is a directory in the tree of trees, with the one name "default" for
// the subvolume that is mounted when nobody says which.
func (l *Layout) rootDir(put putFunc) error {
	if err := l.emptyDir(rootTreeDir, put); err != nil {
		return err
	}
	const name = "default"
	return put(key{rootTreeDir, dirItem, nameHash(name)},
		dirRecord(l.buf[:0], key{fsTree, rootItem, 1<<64 - 1}, 2, name, nil))
}

func (l *Layout) emptyDir(object uint64, put putFunc) error {
	a := attributes{disk: nodeSize, links: 1, mode: 0o040755, at: stamp(l.opts.Time)}
	if err := put(key{object, inodeItem, 0}, inodeRecord(l.buf[:0], a)); err != nil {
		return err
	}
	return put(key{object, inodeRef, object}, record(l.buf[:0]).u64(0).u16(2).text(".."))
}

// relocItems is an empty directory, in which the kernel keeps files while it
// moves chunks.
func (l *Layout) relocItems(put putFunc) error { return l.emptyDir(firstInode, put) }

// uuidItems finds the subvolume by its UUID.
func (l *Layout) uuidItems(put putFunc) error {
	id := l.ids.subvolume
	k := key{binary.LittleEndian.Uint64(id[:]), uuidSubvolume, binary.LittleEndian.Uint64(id[8:])}
	return put(k, record(l.buf[:0]).u64(fsTree))
}
