package btrfs

import "errors"

// part is a tree of the rest, what is in it, and the chunk it goes into.
type part struct {
	*tree
	items func(putFunc) error
	kind  uint64
}

func (l *Layout) parts() []part {
	r := &l.rest
	return []part{
		{&r.uuids, l.uuidItems, metaChunk}, {&r.reloc, l.relocItems, metaChunk},
		{&r.free, l.freeItems, metaChunk}, {&r.devices, l.deviceItems, metaChunk},
		{&r.roots, l.rootItems, metaChunk}, {&r.extents, l.extentItems, metaChunk},
		{&r.chunks, l.chunkItems, systemChunk},
	}
}

var errUnsettled = errors.New("trees do not settle (a bug in this package)")

// placeRest finds how many nodes the rest needs. More nodes need more items,
// and those perhaps more nodes; never fewer, so a few rounds settle it.
func (l *Layout) placeRest() error {
	space, nodes := l.space.clone(), len(l.nodes)
	l.rest = rest{
		uuids: tree{owner: uuidTree}, reloc: tree{owner: relocTree}, free: tree{owner: freeSpaceTree},
		devices: tree{owner: devTree}, roots: tree{owner: rootTree}, extents: tree{owner: extentTree}, chunks: tree{owner: chunkTree},
	}
	for _, p := range l.parts() {
		p.levels = [][]node{{{}}}
	}
	for range 64 {
		l.space, l.nodes = space.clone(), l.nodes[:nodes]
		l.placeNodes()
		settled := true
		for _, p := range l.parts() {
			same, err := p.recount()
			if err != nil {
				return err
			}
			settled = settled && same
		}
		if settled && len(l.systemChunks()) > systemBytes {
			return errUnsettled
		}
		if settled {
			return nil
		}
	}
	return errUnsettled
}

// placeNodes gives all nodes of the rest, as many as were counted last, and the
// upper ones of the other trees their places.
func (l *Layout) placeNodes() {
	place := func(t *tree, from int, kind uint64) {
		for level := from; level < len(t.levels); level++ {
			for i := range t.levels[level] {
				l.space.room(kind)
				at := l.space.take(kind, nodeSize)
				t.levels[level][i].at = at
				l.nodes = append(l.nodes, placed{at, t.owner, uint8(level)})
			}
		}
	}
	place(l.fs, 1, metaChunk)
	place(l.sums, 1, metaChunk)
	for _, p := range l.parts() {
		place(p.tree, 0, p.kind)
	}
	l.space.finish(len(l.space.chunks))
}

// recount packs the items anew, and tells whether they take as many leaves as
// before. Then the places stay, else there are none yet.
func (p part) recount() (same bool, err error) {
	var leaves []node
	c := packer{done: func(first key, _ []byte) error {
		leaves = append(leaves, node{first: first})
		return nil
	}}
	if err := p.items(c.add); err != nil {
		return false, err
	}
	if err := c.close(); err != nil {
		return false, err
	}
	before := p.levels
	same = len(leaves) == len(before[0])
	p.levels = [][]node{leaves}
	p.grow()
	for level := range before {
		for i := range before[level] {
			if same {
				p.levels[level][i].at = before[level][i].at
			}
		}
	}
	return same, nil
}
