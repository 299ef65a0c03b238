package checkpoint

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// TileLevels is how many levels of the tree a tile of C2SP tlog-tiles has.
const TileLevels = 8

// Tree is a Merkle tree's right edge: enough to append to it and to know its
// root. The zero value is empty.
type Tree struct {
	size int64
	edge []tlog.Hash // the complete subtrees, largest first
}

// Node is a complete subtree: the Nth, from zero, of 2^Level leaves.
type Node struct {
	Level int
	N     int64
	Hash  tlog.Hash
}

// Size is how many leaves there are.
func (t Tree) Size() int64 { return t.size }

// Clone is a tree that can be appended to apart from t.
func (t Tree) Clone() Tree { return Tree{t.size, slices.Clone(t.edge)} }

// Append adds a leaf of that content, and returns the tile-high subtree that it
// completes, the highest and all below, if any: those of levels 8, 16 and so on.
func (t *Tree) Append(leaf []byte) (complete []Node) {
	return t.add(tlog.RecordHash(leaf), t.size, 0)
}

// AppendTile adds all leaves of a tile by the tile's root, and returns what that
// completes. The tree must end with a tile.
func (t *Tree) AppendTile(root tlog.Hash) (complete []Node, err error) {
	const width = 1 << TileLevels
	if t.size%width != 0 {
		return nil, fmt.Errorf("adding a tile behind leaf %d, expected a multiple of %d", t.size, width)
	}
	n := t.size / width
	return append([]Node{{TileLevels, n, root}}, t.add(root, n, TileLevels)...), nil
}

// add adds the complete subtree h, the nth of its level.
func (t *Tree) add(h tlog.Hash, n int64, level int) (complete []Node) {
	t.size += 1 << level
	for ; n&1 == 1; level++ {
		last := len(t.edge) - 1
		h, t.edge, n = tlog.NodeHash(t.edge[last], h), t.edge[:last], n>>1
		if (level+1)%TileLevels == 0 {
			complete = append(complete, Node{level + 1, n, h})
		}
	}
	t.edge = append(t.edge, h)
	return complete
}

// Root is the tree's RFC 6962 hash.
func (t Tree) Root() tlog.Hash {
	if t.size == 0 {
		h, _ := tlog.TreeHash(0, nil) // of nothing: reads nothing
		return h
	}
	h := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edge[i], h)
	}
	return h
}

// ReadTree is the tree of the first size leaves.
func ReadTree(size int64, r tlog.HashReader) (t Tree, err error) {
	var indexes []int64
	for level, before := 62, int64(0); level >= 0; level-- {
		if size>>level&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(level, before>>level))
			before += 1 << level
		}
	}
	if len(indexes) == 0 {
		return t, nil
	}
	edge, err := r.ReadHashes(indexes)
	return Tree{size, edge}, err
}

// Extends checks an RFC 6962 proof that the tree of to begins with that of from.
// Every tree extends the empty one, by an empty proof.
func Extends(proof []tlog.Hash, from, to Checkpoint) error {
	switch {
	case from.Size < 0 || from.Size > to.Size:
		return fmt.Errorf("%d entries cannot extend %d", to.Size, from.Size)
	case from.Size == 0 || from.Size == to.Size:
		if len(proof) != 0 {
			return fmt.Errorf("a proof of %d hashes from %d entries to %d, expected an empty one", len(proof), from.Size, to.Size)
		}
		if from.Size == to.Size && from.Root != to.Root {
			return fmt.Errorf("two roots of %d entries: %s and %s", to.Size, from.Root, to.Root)
		}
		if from.Size == 0 && from.Root != (Tree{}).Root() {
			return fmt.Errorf("root %s of an empty tree", from.Root)
		}
		return nil
	}
	if err := tlog.CheckTree(proof, to.Size, to.Root, from.Size, from.Root); err != nil {
		return fmt.Errorf("%d entries, root %s, do not begin with %d, root %s: %w", to.Size, to.Root, from.Size, from.Root, err)
	}
	return nil
}

// Edge is the complete subtrees of t, largest first.
func (t Tree) Edge() []Hash { return slices.Clone(t.edge) }

// TreeOf is the tree of that size and edge.
func TreeOf(size int64, edge []Hash) (Tree, error) {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(edge) {
		return Tree{}, fmt.Errorf("a tree of %d leaves with %d subtrees", size, len(edge))
	}
	return Tree{size, slices.Clone(edge)}, nil
}
