package btrfs

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const maxLinks = 65535

// Plan lays the tree out. Errors name the file that BTRFS cannot hold.
func Plan(t *rootfs.Tree, o Options) (*Layout, error) { return plan(t, o, defaultLimits()) }

func plan(t *rootfs.Tree, o Options, limits limits) (*Layout, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	l := &Layout{opts: o, ids: o.ids(), tree: t, buf: make([]byte, 0, 2*nodeSize), space: space{limits: limits}}
	l.number()
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("planning BTRFS: %w", err)
	}
	if err := l.placeContents(); err != nil {
		return nil, fmt.Errorf("planning BTRFS: %w", err)
	}
	if err := l.placeRest(); err != nil {
		return nil, fmt.Errorf("planning BTRFS: %w", err)
	}
	return l, nil
}

// number gives every node an inode, and those their names.
func (l *Layout) number() {
	nodes := l.tree.Nodes()
	l.slots = make([]int32, len(nodes))
	l.inodes = make([]inode, 0, len(nodes))
	add := func(n *rootfs.Node) {
		l.slots[n.Index()] = int32(len(l.inodes))
		l.inodes = append(l.inodes, inode{node: n})
	}
	for _, n := range nodes {
		if n.Kind != rootfs.Regular {
			add(n)
		}
	}
	for _, n := range l.tree.Files() {
		add(n)
	}
	for i := range l.inodes {
		l.nameChildren(int32(i))
	}
	slices.SortFunc(l.links, func(a, b link) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.parent, b.parent), cmp.Compare(a.pos, b.pos))
	})
}

func (l *Layout) nameChildren(parent int32) {
	for pos, e := range l.inodes[parent].node.Children() {
		slot := l.slot(e.Node)
		if e.Node.Kind == rootfs.Directory || e.Node.Links == 1 {
			l.inodes[slot].parent, l.inodes[slot].pos = parent, int32(pos)
		} else {
			l.links = append(l.links, link{slot, parent, int32(pos)})
		}
	}
}

// check refuses what no layout can hold.
func (l *Layout) check() error {
	for i := range l.inodes {
		n := l.inodes[i].node
		err := checkXattrs(n)
		switch {
		case n.Kind != rootfs.Directory && n.Links > maxLinks:
			err = fmt.Errorf("it has %d hard links; BTRFS holds %d", n.Links, maxLinks)
		case n.Kind == rootfs.Symlink && (n.Target() == "" || len(n.Target()) >= sectorSize):
			err = fmt.Errorf("symlink target has %d bytes; BTRFS holds 1 to 4095", len(n.Target()))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.tree.Quoted(n), err)
		}
	}
	return nil
}

// planner gives data and the leaves that go with it their places.
type planner struct {
	*Layout
	files   packer
	sums    summer
	waiting []*tree // of leaves that are full and have no place yet
}

// placeContents goes the way that WriteTo goes later, with nothing but sizes.
func (l *Layout) placeContents() error {
	l.fs, l.sums = &tree{owner: fsTree}, &tree{owner: csumTree}
	p := &planner{Layout: l}
	p.files = packer{done: p.leafOf(l.fs)}
	p.sums.packer = packer{done: p.leafOf(l.sums)}
	for i := range l.inodes {
		if err := p.place(int32(i)); err != nil {
			return fmt.Errorf("%s: %w", l.tree.Quoted(l.inodes[i].node), err)
		}
	}
	if err := p.files.close(); err != nil {
		return err
	}
	if err := p.sums.close(); err != nil {
		return err
	}
	p.flush()
	l.fs.grow()
	l.sums.grow()
	return nil
}

func (p *planner) leafOf(t *tree) func(key, []byte) error {
	return func(first key, _ []byte) error {
		if len(t.levels) == 0 {
			t.levels = make([][]node, 1)
		}
		t.levels[0] = append(t.levels[0], node{first: first})
		p.waiting = append(p.waiting, t)
		return nil
	}
}

// place places an inode's data, then its items.
func (p *planner) place(slot int32) error {
	in := &p.inodes[slot]
	var content []byte
	if isInline(in.node) {
		content = noContent[:in.node.Size]
	} else {
		for i, run := range dataRuns(in.node) {
			at, err := p.data(run.length)
			if err != nil {
				return err
			}
			if i == 0 {
				in.data = at
			}
		}
	}
	err := p.items(slot, content, p.files.add)
	if len(p.waiting) >= p.space.waiting {
		p.flush()
	}
	return err
}

var noContent [inlineLimit]byte

// noSums stand for the checksums of an extent.
var noSums [maxExtent / sectorSize * sumBytes]byte

// data places a run of a file and says where it begins.
func (p *planner) data(length uint64) (first uint64, err error) {
	for begun := false; length > 0; begun = true {
		if len(p.waiting) >= p.space.waiting {
			p.flush()
		}
		n := min(length, p.space.extent, p.space.room(dataChunk))
		at := p.space.take(dataChunk, n)
		if !begun {
			first = at
		}
		if err := p.sums.add(at, noSums[:n/sectorSize*sumBytes]); err != nil {
			return 0, err
		}
		length -= n
	}
	return first, nil
}

// flush places the leaves that wait.
func (p *planner) flush() {
	for _, t := range p.waiting {
		p.space.room(metaChunk)
		at := p.space.take(metaChunk, nodeSize)
		t.levels[0][t.settled].at = at
		t.settled++
		p.nodes = append(p.nodes, placed{at, t.owner, 0})
	}
	p.waiting = p.waiting[:0]
}
