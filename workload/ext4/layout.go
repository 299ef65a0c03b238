package ext4

import (
	"fmt"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	rootIno      = 2
	journalIno   = 8
	firstFreeIno = 11 // lost+found, as everywhere
	reservedInos = 10
	lostFound    = "lost+found"
	lpfBlocks    = 4 // 16 KiB, so that e2fsck need not allocate
)

// Layout is a planned file system. The tree must not be changed after Plan.
type Layout struct {
	opts Options
	tree *rootfs.Tree

	// From the tree alone.
	inodes []inode        // slot 0 is the root, slot 1 lost+found
	slots  []int32        // by rootfs.Node.Index
	files  []*rootfs.Node // in the order of Tree.Contents
	lpf    *rootfs.Node   // lost+found
	dirs   uint32
	// From the tree and the size.
	geometry
	used    []span // sorted, joined
	journal inode
}

// inode is where a node's blocks are. Extents are not kept but worked out from
// the first data block when needed: most inodes have one.
type inode struct {
	node       *rootfs.Node
	blocks     uint32 // data blocks, holes not counted
	treeBlocks uint32 // extent tree blocks, before the data
	parent     int32  // directories: slot of the parent
	subdirs    uint32 // directories: how many directories they hold
	hasXattr   bool   // needs an attribute block
	tree       uint64
	data       uint64
	xattr      uint64
}

// Plan lays the tree out. It returns an error that wraps ErrTooSmall if
// Options.SizeBytes is not enough, and one that names the file if ext4 cannot
// hold something.
func Plan(t *rootfs.Tree, o Options) (*Layout, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	l := &Layout{opts: o, tree: t}
	if err := l.number(); err != nil {
		return nil, fmt.Errorf("planning ext4: %w", err)
	}
	if err := l.measure(); err != nil {
		return nil, fmt.Errorf("planning ext4: %w", err)
	}
	if err := l.fit(); err != nil {
		return nil, fmt.Errorf("planning ext4: %w", err)
	}
	return l, nil
}

// SizeBytes is exactly what WriteTo writes.
func (l *Layout) SizeBytes() int64 { return l.sizeBytes }

// FreeBytes is what the file system reports as free.
func (l *Layout) FreeBytes() int64 { return int64(l.freeBlocks()) * blockSize }

func inoOf(slot int32) uint32 {
	if slot == 0 {
		return rootIno
	}
	return firstFreeIno - 1 + uint32(slot)
}

// number gives every node an inode.
func (l *Layout) number() error {
	nodes := l.tree.Nodes()
	l.slots = make([]int32, len(nodes))
	l.inodes = make([]inode, 2, len(nodes)+1)
	if l.lpf = l.tree.Lookup("/" + lostFound); l.lpf == nil {
		l.lpf = &rootfs.Node{Kind: rootfs.Directory, Perm: 0o700}
	} else if l.lpf.Kind != rootfs.Directory {
		return fmt.Errorf("/%s is a %s; ext4 needs a directory there", lostFound, l.lpf.Kind)
	}
	l.inodes[0].node, l.inodes[1].node = l.tree.Root(), l.lpf
	for i, n := range nodes {
		switch n {
		case l.tree.Root():
		case l.lpf:
			l.slots[i] = 1
		default:
			l.slots[i] = int32(len(l.inodes))
			l.inodes = append(l.inodes, inode{node: n})
		}
	}
	if len(l.inodes) > maxBlocks/2 {
		return fmt.Errorf("too many files: %d", len(l.inodes))
	}
	return nil
}

// slot is a node's place in l.inodes.
func (l *Layout) slot(n *rootfs.Node) int32 {
	if n == l.lpf {
		return 1
	}
	return l.slots[n.Index()]
}

// children lists a directory as it will be on disk, without "." and "..".
func (l *Layout) children(n *rootfs.Node) []rootfs.Entry {
	entries := n.Children()
	if n != l.tree.Root() || l.tree.Lookup("/"+lostFound) != nil {
		return entries
	}
	return append([]rootfs.Entry{{Name: lostFound, Node: l.lpf}}, entries...)
}

// measure counts each inode's blocks and fills in the directories' links.
func (l *Layout) measure() error {
	for slot := range l.inodes {
		in := &l.inodes[slot]
		if in.node.Links > maxLinks && in.node.Kind != rootfs.Directory {
			return fmt.Errorf("%s has %d hard links; ext4 holds %d", l.name(in.node), in.node.Links, maxLinks)
		}
		_, block, err := splitXattrs(in.node)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name(in.node), err)
		}
		in.hasXattr = block != nil
		if err := l.measureData(int32(slot), in); err != nil {
			return fmt.Errorf("%s: %w", l.name(in.node), err)
		}
	}
	l.files = l.tree.Files()
	return nil
}

func (l *Layout) measureData(slot int32, in *inode) error {
	switch in.node.Kind {
	case rootfs.Directory:
		l.dirs++
		entries := l.children(in.node)
		for _, e := range entries {
			if e.Node.Kind == rootfs.Directory {
				l.inodes[l.slot(e.Node)].parent = slot
				in.subdirs++
			}
		}
		n, err := l.dirBlockCount(entries)
		if in.node == l.lpf {
			n = max(n, lpfBlocks)
		}
		in.blocks = n
		return err
	case rootfs.Symlink:
		if n := len(in.node.Target()); n >= blockSize {
			return fmt.Errorf("symlink target has %d bytes; ext4 holds 4095", n)
		} else if n >= fastSymlink {
			in.blocks = 1
		}
	case rootfs.Regular:
		if in.node.Size > (1<<32-1)*blockSize {
			return fmt.Errorf("file has %d bytes; ext4 holds 16 TiB", in.node.Size)
		}
		for _, r := range dataBlocks(in.node) {
			in.blocks += r.count
		}
	}
	return nil
}

// name finds a path for an error message.
func (l *Layout) name(n *rootfs.Node) string {
	if n == l.lpf {
		return `"/` + lostFound + `"`
	}
	return l.tree.Quoted(n)
}

// blockRun is a run of a file's logical blocks that hold data.
type blockRun struct{ first, count uint32 }

func dataBlocks(n *rootfs.Node) []blockRun {
	ranges, sparse := n.Data()
	if !sparse {
		if n.Size == 0 {
			return nil
		}
		return []blockRun{{0, blocksFor(n.Size)}}
	}
	runs := make([]blockRun, len(ranges))
	for i, r := range ranges {
		runs[i] = blockRun{uint32(r.Offset / blockSize), blocksFor(r.Length)}
	}
	return runs
}

func blocksFor(bytes int64) uint32 { return uint32((bytes + blockSize - 1) / blockSize) }
