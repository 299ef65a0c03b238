package erofs

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	blockSize  = 4096
	inodeBytes = 64
	slotBytes  = 32 // unit of inode numbers (nids)
	maxBlocks  = 1<<32 - 2
	maxChunks  = 1 << 16 // of a sparse file; chunks get larger instead
	noBlock    = 1<<32 - 1
)

// Options say what the file system is to be. Nothing is random and no clock is
// read, so the same tree and options give the same bytes.
type Options struct {
	UUID  [16]byte  // must not be zero
	Label string    // volume name, at most 15 bytes
	Time  time.Time // when the file system was "made"; zero: the Unix epoch
}

// Layout is a planned file system. The tree must not be changed after Plan.
type Layout struct {
	opts   Options
	tree   *rootfs.Tree
	inodes []inode // by rootfs.Node.Index; the root is the first
	files  []*rootfs.Node
	blocks uint64
}

// inode is where a node and its data are.
type inode struct {
	node      *rootfs.Node
	size      uint64
	nid       uint64
	block     uint64 // first data block
	parent    int32  // directories: index of the parent
	subdirs   uint32
	inline    bool  // the last, partial block follows the inode
	chunkBits uint8 // sparse files: log2 of a chunk's blocks
	xattrs    uint32
}

// Plan lays the tree out. Errors name the file that EROFS cannot hold.
func Plan(t *rootfs.Tree, o Options) (*Layout, error) {
	if o.UUID == [16]byte{} {
		return nil, errors.New("planning EROFS: UUID must not be zero")
	}
	if len(o.Label) > 15 {
		return nil, fmt.Errorf("planning EROFS: label must have at most 15 bytes, got %d", len(o.Label))
	}
	if o.Time.IsZero() {
		o.Time = time.Unix(0, 0)
	}
	l := &Layout{opts: o, tree: t}
	nodes := t.Nodes()
	l.inodes = make([]inode, len(nodes))
	for i, n := range nodes {
		l.inodes[i].node = n
	}
	for i := range l.inodes {
		if err := l.measure(int32(i)); err != nil {
			return nil, fmt.Errorf("planning EROFS: %s: %w", l.tree.Quoted(nodes[i]), err)
		}
	}
	l.files = t.Files()
	l.place()
	if l.blocks > maxBlocks {
		return nil, fmt.Errorf("planning EROFS: content needs more than 16 TiB")
	}
	return l, nil
}

// SizeBytes is exactly what WriteTo writes.
func (l *Layout) SizeBytes() int64 { return int64(l.blocks) * blockSize }

// measure fills in what does not depend on where things are.
func (l *Layout) measure(i int32) error {
	in := &l.inodes[i]
	attrs, err := xattrBody(in.node)
	if err != nil {
		return err
	}
	in.xattrs = uint32(len(attrs))
	switch in.node.Kind {
	case rootfs.Directory:
		entries := in.node.Children()
		for _, e := range entries {
			if e.Node.Kind == rootfs.Directory {
				l.inodes[e.Node.Index()].parent = i
				in.subdirs++
			}
		}
		in.size = dirSize(entries)
	case rootfs.Symlink:
		in.size = uint64(len(in.node.Target()))
	case rootfs.Regular:
		in.size = uint64(in.node.Size)
	}
	if in.sparse() {
		in.chunkBits = chunkBitsFor(in.size)
		return nil
	}
	tail := in.size % blockSize
	in.inline = tail > 0 && inodeBytes+uint64(in.xattrs)+tail <= blockSize
	return nil
}

// chunkBitsFor makes chunks as small as a map of maxChunks allows.
func chunkBitsFor(size uint64) uint8 {
	return uint8(bits.Len64((blocksFor(size) - 1) / maxChunks))
}

// sparse tells whether the file gets a block map. A file of no data needs none.
func (in *inode) sparse() bool {
	_, sparse := in.node.Data()
	return sparse && in.size > 0
}

// wholeBlocks are the data blocks outside the inode.
func (in *inode) wholeBlocks() uint64 {
	if in.sparse() {
		n := uint64(0)
		for _, c := range in.chunks() {
			n += c.blocks
		}
		return n
	}
	if in.inline {
		return in.size / blockSize
	}
	return blocksFor(in.size)
}

// slotSize is what goes where the inode is: inode, attributes, rest or map.
func (in *inode) slotSize() int {
	n := inodeBytes + int(in.xattrs)
	if in.sparse() {
		return n + 4*int(in.chunkCount())
	}
	if in.inline {
		n += int(in.size % blockSize)
	}
	return n
}

// chunk is a piece of a sparse file that has data.
type chunk struct{ index, blocks uint64 }

func (in *inode) chunkCount() uint64 {
	return (blocksFor(in.size) + 1<<in.chunkBits - 1) >> in.chunkBits
}

func (in *inode) chunks() (out []chunk) {
	ranges, _ := in.node.Data()
	size := uint64(blockSize) << in.chunkBits
	for _, r := range ranges {
		first, last := uint64(r.Offset)/size, uint64(r.Offset+r.Length-1)/size
		for c := first; c <= last; c++ {
			if n := len(out); n > 0 && out[n-1].index == c {
				continue
			}
			out = append(out, chunk{c, min(1<<in.chunkBits, blocksFor(in.size)-c<<in.chunkBits)})
		}
	}
	return out
}

// place gives everything its address. The root, being first, gets one that
// fits in the superblock's 16 bits.
func (l *Layout) place() {
	next := uint64(1)
	p := packer{}
	put := func(in *inode) {
		if p.full(in.slotSize()) {
			next = p.close(next)
		}
		p.add(in)
	}
	for i := range l.inodes {
		if in := &l.inodes[i]; l.isFront(in) {
			put(in)
		}
	}
	next = p.close(next)
	for i := range l.inodes {
		if in := &l.inodes[i]; in.node.Kind != rootfs.Regular {
			in.block, next = next, next+in.wholeBlocks()
		}
	}
	for _, n := range l.files {
		in := &l.inodes[n.Index()]
		in.block, next = next, next+in.wholeBlocks()
		if !l.isFront(in) {
			put(in)
		}
	}
	l.blocks = p.close(next)
}

// isFront tells whether an inode stands before all file data.
func (l *Layout) isFront(in *inode) bool { return in.node.Kind != rootfs.Regular || in.sparse() }

// packer collects inodes for a run of blocks, nearly always one, whose address
// is known only when it is full.
type packer struct {
	pending []*inode
	offsets []int
	used    int
}

// full tells whether a slot of n bytes needs a new run: inline data must not
// cross a block's end.
func (p *packer) full(n int) bool {
	return p.used > 0 && p.used%blockSize+n > blockSize || p.used > 0 && p.used%blockSize == 0
}

// add takes an inode, and returns where in the run it is.
func (p *packer) add(in *inode) int {
	at := p.used
	p.pending = append(p.pending, in)
	p.offsets = append(p.offsets, at)
	p.used = (at + in.slotSize() + slotBytes - 1) / slotBytes * slotBytes
	return at
}

// close puts the run at a block and returns the block after it.
func (p *packer) close(block uint64) uint64 {
	for i, in := range p.pending {
		in.nid = (block*blockSize + uint64(p.offsets[i])) / slotBytes
	}
	block += blocksFor(uint64(p.used))
	*p = packer{pending: p.pending[:0], offsets: p.offsets[:0]}
	return block
}

func blocksFor(bytes uint64) uint64 { return (bytes + blockSize - 1) / blockSize }
