package firmware

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
)

// The newc form of cpio as Linux reads it (Documentation/driver-api/
// early-userspace/buffer-format.rst): a header of 110 bytes in ASCII hex,
// name and data each padded to 4 bytes, the end marked by "TRAILER!!!".

const (
	newcMagic     = "070701"
	newcHeader    = 110
	newcTrailer   = "TRAILER!!!"
	maxEntryName  = 4096 // Linux PATH_MAX, NUL included
	maxEntries    = 65536
	typeDirectory = 0o040000
	typeRegular   = 0o100000
	typeSymlink   = 0o120000
	typeCharacter = 0o020000
	typeBlock     = 0o060000
	typeMask      = 0o170000
)

// archive collects a deterministic newc archive: owner root, time 0, inode
// numbers in order of appearance.
type archive struct {
	buf []byte
	ino uint32
}

type node struct {
	name         string // without leading slash
	mode         uint32 // type and permissions
	data         []byte
	major, minor uint32 // of a device
}

func (a *archive) add(n node) {
	a.ino++
	links := uint32(1)
	if n.mode&typeMask == typeDirectory {
		links = 2
	}
	a.header(n, a.ino, links)
}

func (a *archive) header(n node, ino, links uint32) {
	// An agent is megabytes, and memory that grows is copied and cleared each time.
	a.buf = slices.Grow(a.buf, newcHeader+len(n.name)+len(n.data)+newcHeader)
	a.buf = append(a.buf, newcMagic...)
	for _, v := range []uint32{
		ino, n.mode, 0, 0, links, 0, uint32(len(n.data)), 0, 0,
		n.major, n.minor, uint32(len(n.name) + 1), 0,
	} {
		a.buf = fmt.Appendf(a.buf, "%08x", v)
	}
	a.buf = append(append(a.buf, n.name...), 0)
	a.align()
	a.buf = append(a.buf, n.data...)
	a.align()
}

func (a *archive) align() {
	for len(a.buf)%4 != 0 {
		a.buf = append(a.buf, 0)
	}
}

func (a *archive) directories(names ...string) {
	for _, name := range names {
		a.add(node{name: name, mode: typeDirectory | 0o755})
	}
}

// finish ends the archive and returns it, a multiple of 4 bytes.
func (a *archive) finish() []byte {
	a.header(node{name: newcTrailer}, 0, 1)
	return a.buf
}

// Entry is one member of an initrd.
type Entry struct {
	Name      string `json:"name"` // absolute and clean, as the kernel unpacks it
	Mode      uint32 `json:"mode"` // type and permissions, as in stat(2)
	SizeBytes uint32 `json:"size_bytes"`
	Device    string `json:"device,omitempty"` // MAJOR:MINOR
	Archive   int    `json:"archive"`          // which of the concatenated archives, from 0
}

// FileMode is e's mode in Go's form.
func (e Entry) FileMode() fs.FileMode {
	m := fs.FileMode(e.Mode & 0o777)
	switch e.Mode & typeMask {
	case typeDirectory:
		m |= fs.ModeDir
	case typeSymlink:
		m |= fs.ModeSymlink
	case typeBlock:
		m |= fs.ModeDevice
	case typeCharacter:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	return m
}

// reader walks one newc archive in a stream.
type reader struct {
	r   io.Reader
	pos uint64
}

// next reads one header. At the trailer it returns io.EOF. The caller must
// read exactly SizeBytes through data before the next call.
func (c *reader) next() (Entry, error) {
	var h [newcHeader]byte
	if err := c.full(h[:]); err != nil {
		return Entry{}, fmt.Errorf("reading cpio header: %w", err)
	}
	if string(h[:6]) != newcMagic {
		return Entry{}, fmt.Errorf("cpio magic %q, expected %q", h[:6], newcMagic)
	}
	var f [13]uint32
	for i := range f {
		v, err := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			return Entry{}, fmt.Errorf("cpio header field %d: %w", i, err)
		}
		f[i] = uint32(v)
	}
	name, err := c.name(f[11])
	if err != nil {
		return Entry{}, err
	}
	if name == newcTrailer {
		return Entry{}, io.EOF
	}
	if f[4] > 1 && f[1]&typeMask == typeRegular {
		return Entry{}, fmt.Errorf("cpio entry %q is a hard link, which an initrd needs none of", name)
	}
	e := Entry{Name: path.Clean("/" + name), Mode: f[1], SizeBytes: f[6]}
	if kind := f[1] & typeMask; kind == typeCharacter || kind == typeBlock {
		e.Device = fmt.Sprintf("%d:%d", f[9], f[10])
	}
	return e, nil
}

func (c *reader) name(size uint32) (string, error) {
	if size < 2 || size > maxEntryName {
		return "", fmt.Errorf("cpio name of %d bytes, expected 2 to %d", size, maxEntryName)
	}
	b := make([]byte, size)
	if err := c.full(b); err != nil {
		return "", fmt.Errorf("reading cpio name: %w", err)
	}
	for i, x := range b {
		if (x == 0) != (i == len(b)-1) {
			return "", errors.New("cpio name is not ended by its only NUL")
		}
	}
	return string(b[:size-1]), c.align()
}

// data copies the current entry's content to w.
func (c *reader) data(w io.Writer, size uint32) error {
	n, err := io.CopyN(w, c.r, int64(size))
	c.pos += uint64(n)
	if err != nil {
		return fmt.Errorf("reading cpio data: %w", err)
	}
	return c.align()
}

func (c *reader) align() error {
	var pad [3]byte
	return c.full(pad[:-c.pos&3])
}

func (c *reader) full(b []byte) error {
	n, err := io.ReadFull(c.r, b)
	c.pos += uint64(n)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
