package rpmdb

import (
	"bytes"
	"encoding/binary"
)

// Package is one installed package.
type Package struct {
	Name, Version, Release, Arch string
	Epoch                        uint32
	HasEpoch                     bool
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
