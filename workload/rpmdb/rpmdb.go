// Package rpmdb lists the packages in an RPM database: SQLite (Fedora, RHEL
// 9), ndb (SUSE) or Berkeley DB (RHEL 8 and before). It reads, from an
// io.ReaderAt, and never writes.
//
// The file is what somebody put into an image, so every offset is checked, no
// page is followed twice and nothing is allocated that the file could not hold.
// Two libraries that read the same do not hold that:
//
//   - github.com/knqyf263/go-rpmdb opens a path, for which an image's database
//     would have to lie on a disk in the clear. It reads in goroutines of its
//     own, where nobody can recover from a panic, slices by offsets it has not
//     checked and follows page chains that may be rings.
//   - modernc.org/sqlite (v1.60) reads the schema before any query. Of a schema
//     whose pages share one child each, as in TestDamaged, it reads the same row
//     500^17 times, and the end of the context does not stop it: a file of 90 kB
//     keeps a build for ever. Tables of many columns make it take six times the
//     file's size in memory. It would also add 3.7 MB to ccrun.
package rpmdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Package is one installed package.
type Package struct {
	Name, Version, Release, Arch string
	Epoch                        uint32
	HasEpoch                     bool
}

// ErrUnknownFormat is a file that is none of the three.
var ErrUnknownFormat = errors.New("not an RPM database of a known format")

var errDamaged = errors.New("damaged RPM database")

func damaged(format string, a ...any) error {
	return fmt.Errorf("%w: %w", errDamaged, fmt.Errorf(format, a...))
}

// maxHeader bounds one package's header: large ones, with many files, have a
// few MiB.
const maxHeader = 64 << 20

// Read calls visit for each package, in the file's order. An error of visit
// ends it.
func Read(r io.ReaderAt, size int64, visit func(Package) error) error {
	f := &file{r: r, size: size, left: 2 * size}
	head, err := f.bytes(0, min(size, 100))
	if err != nil {
		return err
	}
	each := func(blob []byte) error {
		p, err := parseHeader(blob)
		if err != nil {
			return err
		}
		if p.Name == "gpg-pubkey" { // a key, in a package's clothes
			return nil
		}
		return visit(p)
	}
	switch {
	case bytes.HasPrefix(head, []byte("SQLite format 3\x00")) && len(head) == 100:
		return f.sqlite(head, each)
	case bytes.HasPrefix(head, []byte("RpmP")) && len(head) >= 32:
		return f.ndb(head, each)
	case len(head) >= 72 && bdbOrder(head) != nil:
		return f.bdb(head, each)
	}
	return ErrUnknownFormat
}

// file reads with bounds.
type file struct {
	r    io.ReaderAt
	size int64
	left int64 // bytes of headers that may still be read: parts must not overlap much
}

func (f *file) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > f.size || n > f.size-off {
		return nil, damaged("%d bytes at %d, the file has %d", n, off, f.size)
	}
	b := make([]byte, n)
	if _, err := f.r.ReadAt(b, off); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// take accounts for a header of n bytes.
func (f *file) take(n int64) error {
	if n > maxHeader {
		return damaged("header of %d bytes, at most %d allowed", n, maxHeader)
	}
	if f.left -= n; f.left < 0 {
		return damaged("more headers than the file can hold")
	}
	return nil
}

// Tags and types of lib/rpmtag.h.
const (
	tagName    = 1000
	tagVersion = 1001
	tagRelease = 1002
	tagEpoch   = 1003
	tagArch    = 1022

	typeInt32  = 4
	typeString = 6
)

// parseHeader reads a header as the database has it: number of index entries,
// bytes of data, index, data; big endian.
func parseHeader(b []byte) (p Package, err error) {
	if len(b) < 8 {
		return p, damaged("header of %d bytes", len(b))
	}
	n, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if 8+16*n+size > int64(len(b)) {
		return p, damaged("header of %d entries and %d bytes of data in %d bytes", n, size, len(b))
	}
	index, data := b[8:8+16*n], b[8+16*n:8+16*n+size]
	texts := map[uint32]*string{tagName: &p.Name, tagVersion: &p.Version, tagRelease: &p.Release, tagArch: &p.Arch}
	for ; len(index) > 0; index = index[16:] {
		tag, kind, off := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:]), int64(binary.BigEndian.Uint32(index[8:]))
		text := texts[tag]
		switch {
		case text != nil && kind == typeString && off < size:
			s, _, ok := bytes.Cut(data[off:], []byte{0})
			if !ok || len(s) > maxText {
				return p, damaged("tag %d is too long", tag)
			}
			*text = string(s)
		case tag == tagEpoch && kind == typeInt32 && off <= size-4:
			p.Epoch, p.HasEpoch = binary.BigEndian.Uint32(data[off:]), true
		case text != nil || tag == tagEpoch:
			return p, damaged("tag %d of type %d at %d in %d bytes", tag, kind, off, size)
		}
	}
	if p.Name == "" {
		return p, damaged("package without a name")
	}
	return p, nil
}

const maxText = 1024
