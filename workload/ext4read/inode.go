package ext4read

import (
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	flagExtents    = 0x80000
	flagEAInode    = 0x200000
	flagInlineData = 0x10000000
	flagEncrypt    = 0x800

	extentMagic    = 0xF30A
	maxExtentDepth = 5
	maxExtents     = 1 << 20 // of one file
	unwritten      = 1 << 15
	maxFileBytes   = 1 << 44
)

// inode is one as far as a tar needs it.
type inode struct {
	number   uint32
	mode     uint16
	uid, gid uint32
	links    uint16
	size     int64
	flags    uint32
	mtime    time.Time
	acl      uint64 // block with attributes
	block    [60]byte
	tail     []byte // attributes behind the fixed part
}

func (fs *FS) inode(n uint32) (*inode, error) {
	if n == 0 || n > fs.inodes {
		return nil, fmt.Errorf("inode %d of %d", n, fs.inodes)
	}
	group, index := (n-1)/fs.inodesPerGrp, (n-1)%fs.inodesPerGrp
	off := int64(index) * fs.inodeBytes
	table := fs.tables[group]
	if table == 0 || table >= fs.blocks || int64(table)*fs.blockBytes+off+fs.inodeBytes > int64(fs.blocks)*fs.blockBytes {
		return nil, fmt.Errorf("inode %d lies beyond the disk", n)
	}
	b := make([]byte, fs.inodeBytes)
	if _, err := fs.r.ReadAt(b, int64(table)*fs.blockBytes+off); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", n, err)
	}
	i := &inode{
		number: n, mode: le.Uint16(b), links: le.Uint16(b[26:]), flags: le.Uint32(b[32:]),
		uid:  uint32(le.Uint16(b[2:])) | uint32(le.Uint16(b[120:]))<<16,
		gid:  uint32(le.Uint16(b[24:])) | uint32(le.Uint16(b[122:]))<<16,
		size: int64(le.Uint32(b[4:])) | int64(le.Uint32(b[108:]))<<32,
		acl:  uint64(le.Uint32(b[104:])),
	}
	if fs.is64 {
		i.acl |= uint64(le.Uint16(b[118:])) << 32
	}
	copy(i.block[:], b[40:])
	i.times(b)
	switch {
	case i.links == 0 || le.Uint32(b[20:]) != 0:
		return nil, fmt.Errorf("inode %d is not in use", n)
	case i.size < 0 || i.size > maxFileBytes:
		return nil, fmt.Errorf("inode %d of %d bytes", n, i.size)
	case i.flags&(flagEAInode|flagInlineData|flagEncrypt) != 0:
		return nil, fmt.Errorf("inode %d has flags %#x, expected none of inline data, encryption, attribute inode", n, i.flags)
	}
	return i, nil
}

// times also finds what is behind the first 128 bytes.
func (i *inode) times(b []byte) {
	sec, nsec := int64(int32(le.Uint32(b[16:]))), int64(0)
	if len(b) >= 132 {
		extra := int(le.Uint16(b[128:]))
		if extra >= 12 && 128+extra <= len(b) {
			x := le.Uint32(b[136:])
			sec += int64(x&3) << 32
			nsec = int64(x >> 2)
		}
		if extra >= 4 && extra%4 == 0 && 128+extra <= len(b) {
			i.tail = b[128+extra:]
		}
	}
	i.mtime = time.Unix(sec, min(nsec, 999999999)).UTC()
}

// extent is a run of blocks with data.
type extent struct{ logical, physical, blocks uint64 }

// extents lists the data of i in order. Unwritten extents are holes.
func (fs *FS) extents(i *inode) ([]extent, error) {
	if i.flags&flagExtents == 0 {
		return nil, fmt.Errorf("inode %d has no extents", i.number)
	}
	w := extentWalk{fs: fs}
	if err := w.node(i.block[:], maxExtentDepth); err != nil {
		return nil, fmt.Errorf("extents of inode %d: %w", i.number, err)
	}
	return w.list, nil
}

type extentWalk struct {
	fs    *FS
	list  []extent
	next  uint64 // logical blocks come in order, each once
	nodes int
}

func (w *extentWalk) node(b []byte, maxDepth int) error {
	entries, depth := int(le.Uint16(b[2:])), int(le.Uint16(b[6:]))
	w.nodes++
	switch {
	case le.Uint16(b) != extentMagic:
		return errors.New("no magic")
	case 12+12*entries > len(b):
		return fmt.Errorf("%d entries in %d bytes", entries, len(b))
	case depth > maxDepth:
		return fmt.Errorf("depth %d, expected at most %d", depth, maxDepth)
	case w.nodes > maxExtents/64:
		return errors.New("too many nodes")
	}
	for e := b[12 : 12+12*entries]; len(e) > 0; e = e[12:] {
		if depth == 0 {
			if err := w.leaf(e); err != nil {
				return err
			}
			continue
		}
		child := make([]byte, w.fs.blockBytes)
		if err := w.fs.readBlock(uint64(le.Uint32(e[4:]))|uint64(le.Uint16(e[8:]))<<32, child); err != nil {
			return err
		}
		if int(le.Uint16(child[6:])) != depth-1 {
			return errors.New("levels do not follow each other")
		}
		if err := w.node(child, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *extentWalk) leaf(e []byte) error {
	n := uint64(le.Uint16(e[4:]))
	hole := n > unwritten
	if hole {
		n -= unwritten
	}
	x := extent{uint64(le.Uint32(e)), uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32, n}
	switch {
	case n == 0 || x.logical < w.next:
		return errors.New("out of order")
	case x.physical == 0 || x.physical >= w.fs.blocks || n > w.fs.blocks-x.physical:
		return fmt.Errorf("blocks %d to %d of %d", x.physical, x.physical+n, w.fs.blocks)
	case len(w.list) >= maxExtents:
		return errors.New("too many extents")
	}
	w.next = x.logical + n
	if !hole {
		w.list = append(w.list, x)
	}
	return nil
}

// content reads a file from its start, holes as zeros.
type content struct {
	fs   *FS
	list []extent
	off  int64
	size int64
}

func (fs *FS) content(i *inode) (io.Reader, error) {
	if i.size == 0 {
		return &content{}, nil
	}
	list, err := fs.extents(i)
	return &content{fs: fs, list: list, size: i.size}, err
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.off >= c.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.size-c.off)]
	bs := c.fsBlock()
	for len(c.list) > 0 && int64(c.list[0].logical+c.list[0].blocks)*bs <= c.off {
		c.list = c.list[1:]
	}
	if len(c.list) == 0 || int64(c.list[0].logical)*bs > c.off { // a hole
		if len(c.list) > 0 {
			p = p[:min(int64(len(p)), int64(c.list[0].logical)*bs-c.off)]
		}
		clear(p)
		c.off += int64(len(p))
		return len(p), nil
	}
	x := c.list[0]
	in := c.off - int64(x.logical)*bs
	p = p[:min(int64(len(p)), int64(x.blocks)*bs-in)]
	n, err := c.fs.r.ReadAt(p, int64(x.physical)*bs+in)
	c.off += int64(n)
	if n == len(p) {
		err = nil
	} else if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *content) fsBlock() int64 { return c.fs.blockBytes }
