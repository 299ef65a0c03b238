package btrfs

import "github.com/ccrun/ccrun/workload/rootfs"

// Layout is a planned file system. The tree must not be changed after Plan.
type Layout struct {
	opts   Options
	ids    ids
	tree   *rootfs.Tree
	inodes []inode // the root, what is no regular file, and the files in the order of Tree.Contents
	slots  []int32 // by rootfs.Node.Index
	links  []link  // of inodes with several names; sorted
	buf    []byte  // for one item

	space space
	fs    *tree    // its leaves stand between the data
	sums  *tree    // so do these
	nodes []placed // of all trees, upwards
	rest           // what is written last
}

// placed is a node of a tree at its place on the disk.
type placed struct {
	at, owner uint64
	level     uint8
}

// inode is where a node is named, and where its data starts.
type inode struct {
	node   *rootfs.Node
	data   uint64
	parent int32 // slot of the directory; of an inode with several names see Layout.links
	pos    int32 // place in the parent's Children
}

// link is one of several names of an inode.
type link struct{ slot, parent, pos int32 }

// rest is the trees that are written after everything else, whole. What is in
// them depends on where all nodes are, their own included.
type rest struct {
	uuids, reloc, free, devices, roots, extents, chunks tree
}

// SizeBytes is exactly what WriteTo writes.
func (l *Layout) SizeBytes() int64 { return int64(l.space.next()) }

// inoOf is the inode number of a slot. The root is the first.
func inoOf(slot int32) uint64 { return firstInode + uint64(slot) }

// indexOf is the DIR_INDEX of a directory's child; 0 and 1 would be the dots.
func indexOf(pos int32) uint64 { return uint64(pos) + 2 }

func (l *Layout) slot(n *rootfs.Node) int32 { return l.slots[n.Index()] }
