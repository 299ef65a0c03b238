package erofs

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	superOffset     = 1024
	superMagic      = 0xE0F5E1E2
	compatChecksum  = 0x1
	compatMtime     = 0x2
	incompatChunked = 0x4
)

// WriteTo writes the file system to w: SizeBytes bytes, in order, no seeking.
// It reads the layers once more; errors name layer and file, and wrap
// rootfs.ErrSourceChanged if the layers are not what they were.
func (l *Layout) WriteTo(ctx context.Context, w io.Writer) error {
	s := &stream{l: l, w: bufio.NewWriterSize(writer{ctx, w}, 1<<20)}
	for _, step := range []func() error{
		func() error { return s.write(l.super()) },
		s.front,
		func() error { return l.tree.Contents(ctx, s.file) },
		s.flushRun,
		func() error { return s.at(l.blocks) },
		s.w.Flush,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("writing EROFS: %w", err)
		}
	}
	return nil
}

// super is the first block.
func (l *Layout) super() []byte {
	b := make([]byte, blockSize)
	sb := b[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(sb[0:], superMagic)
	le.PutUint32(sb[8:], compatChecksum|compatMtime)
	sb[12] = 12 // log2 of the block size
	le.PutUint16(sb[14:], uint16(l.inodes[0].nid))
	le.PutUint64(sb[16:], uint64(len(l.inodes)))
	le.PutUint64(sb[24:], uint64(l.opts.Time.Unix()))
	le.PutUint32(sb[32:], uint32(l.opts.Time.Nanosecond()))
	le.PutUint32(sb[36:], uint32(l.blocks))
	copy(sb[48:], l.opts.UUID[:])
	copy(sb[64:79], l.opts.Label)
	if slices.ContainsFunc(l.files, func(n *rootfs.Node) bool { return l.inodes[n.Index()].sparse() }) {
		le.PutUint32(sb[80:], incompatChunked)
	}
	// The kernel's crc32c has no final inversion.
	le.PutUint32(sb[4:], ^crc32.Checksum(sb, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// stream writes blocks in order and goes through the same packing as Plan.
type stream struct {
	l     *Layout
	w     *bufio.Writer
	block uint64
	run   packer
	buf   []byte // the run so far
}

// writer stops at cancellation, and hides the destination's other methods.
type writer struct {
	ctx context.Context
	w   io.Writer
}

func (w writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

var zeros [blockSize]byte

// write appends bytes and pads them to whole blocks.
func (s *stream) write(b []byte) error {
	s.block += blocksFor(uint64(len(b)))
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	_, err := s.w.Write(zeros[:-len(b)&(blockSize-1)])
	return err
}

// copyFrom appends n bytes of r, padded to whole blocks.
func (s *stream) copyFrom(r io.Reader, n uint64) error {
	s.block += blocksFor(n)
	got, err := io.CopyN(s.w, r, int64(n))
	if err != nil {
		return fmt.Errorf("reading content: %w after %d of %d bytes", unexpected(err), got, n)
	}
	_, err = s.w.Write(zeros[:-n&(blockSize-1)])
	return err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// at checks that the stream is where the plan says.
func (s *stream) at(block uint64) error {
	if s.block != block {
		return fmt.Errorf("at block %d, planned %d (a bug in this package)", s.block, block)
	}
	return nil
}

// slot adds an inode to the run, writing out a full one, and returns the space
// for its inline data.
func (s *stream) slot(in *inode) ([]byte, error) {
	if s.run.full(in.slotSize()) {
		if err := s.flushRun(); err != nil {
			return nil, err
		}
	}
	at := s.run.used
	if at == 0 && in.nid%(blockSize/slotBytes) != 0 {
		return nil, fmt.Errorf("inode %d planned inside a block (a bug in this package)", in.nid)
	}
	s.run.used = (at + in.slotSize() + slotBytes - 1) / slotBytes * slotBytes
	s.buf = append(s.buf, make([]byte, s.run.used-at)...)
	b := s.buf[at : at+in.slotSize()]
	inline, err := s.l.putInode(b, in)
	if err != nil {
		return nil, err
	}
	return b[inline:], nil
}

func (s *stream) flushRun() error {
	err := s.write(s.buf)
	s.buf, s.run.used = s.buf[:0], 0
	return err
}

// front writes everything before file data.
func (s *stream) front() error {
	for i := range s.l.inodes {
		in := &s.l.inodes[i]
		if !s.l.isFront(in) {
			continue
		}
		tail, err := s.slot(in)
		if err != nil {
			return err
		}
		if in.inline {
			content := s.l.content(in)
			copy(tail, content[len(content)-len(tail):])
		}
	}
	if err := s.flushRun(); err != nil {
		return err
	}
	for i := range s.l.inodes {
		in := &s.l.inodes[i]
		n := in.wholeBlocks()
		if in.node.Kind == rootfs.Regular || n == 0 {
			continue
		}
		if err := s.at(in.block); err != nil {
			return err
		}
		content := s.l.content(in)
		if err := s.write(content[:min(n*blockSize, uint64(len(content)))]); err != nil {
			return err
		}
	}
	return nil
}

// content is a directory's or symlink's data.
func (l *Layout) content(in *inode) []byte {
	if in.node.Kind == rootfs.Directory {
		return l.dirContent(in)
	}
	return []byte(in.node.Target())
}

// file writes one file's data, and its inode into the run.
func (s *stream) file(n *rootfs.Node, r io.Reader) error {
	in := &s.l.inodes[n.Index()]
	if in.node != n {
		return fmt.Errorf("the tree was changed after planning")
	}
	if in.wholeBlocks() > 0 {
		if err := s.at(in.block); err != nil {
			return err
		}
	}
	if in.sparse() {
		return s.sparseFile(in, r)
	}
	if err := s.copyFrom(r, min(in.wholeBlocks()*blockSize, in.size)); err != nil {
		return err
	}
	tail, err := s.slot(in)
	if err != nil || !in.inline {
		return err
	}
	if _, err := io.ReadFull(r, tail); err != nil {
		return fmt.Errorf("reading content: %w", unexpected(err))
	}
	return nil
}

// sparseFile writes the chunks that have data.
func (s *stream) sparseFile(in *inode, r io.Reader) error {
	size := uint64(blockSize) << in.chunkBits
	var off uint64
	for _, c := range in.chunks() {
		if _, err := io.CopyN(io.Discard, r, int64(c.index*size-off)); err != nil {
			return fmt.Errorf("reading a hole: %w", unexpected(err))
		}
		n := min(size, in.size-c.index*size)
		if err := s.copyFrom(r, n); err != nil {
			return err
		}
		off = c.index*size + n
	}
	return nil
}
