package rootfs

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Index is what a scan keeps of one layer: its headers, no contents. It does
// not depend on other layers, so layers can be scanned at the same time, while
// they are being pulled, or an Index be kept for the next build.
//
// The headers are kept as bytes: a million of them as structs and strings
// would take most of the memory that a whole build may have.
type Index struct {
	slabs       [][]byte // encoded entries; none goes over a slab's end
	count       int32
	last        string // the previous name: of the next, only what differs is kept
	buf         []byte
	warnings    []string
	fingerprint [32]byte
}

const slabBytes = 256 << 10

// What an entry costs in memory beyond its encoding.
const (
	rareCost  = 96
	rangeCost = 16
	xattrCost = 48
)

// Bits that say which of the rare fields follow.
const (
	hasLink = 1 << iota
	hasDevice
	hasXattrs
	hasData
)

// add appends an entry and returns its cost in memory.
func (idx *Index) add(e *entry) int64 {
	b := e.append(idx.buf[:0], sharedPrefix(idx.last, e.name))
	idx.buf, idx.last = b, e.name
	idx.count++
	n := len(idx.slabs)
	if n == 0 || cap(idx.slabs[n-1])-len(idx.slabs[n-1]) < len(b) {
		idx.slabs = append(idx.slabs, make([]byte, 0, max(slabBytes, len(b))))
		n++
	}
	idx.slabs[n-1] = append(idx.slabs[n-1], b...)
	cost := int64(len(b) + len(e.name) - strings.LastIndexByte(e.name, '/')) // the tree has the last component again
	if r := e.rare; r != nil {
		cost += rareCost + int64(len(r.data))*rangeCost + int64(len(r.xattrs))*xattrCost
	}
	return cost
}

func sharedPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (e *entry) append(b []byte, shared int) []byte {
	put := func(v uint64) { b = binary.AppendUvarint(b, v) }
	str := func(s string) { put(uint64(len(s))); b = append(b, s...) }
	r := e.more()
	var has byte
	for _, f := range []struct {
		bit byte
		is  bool
	}{{hasLink, r.link != ""}, {hasDevice, r.major != 0 || r.minor != 0}, {hasXattrs, len(r.xattrs) > 0}, {hasData, r.sparse}} {
		if f.is {
			has |= f.bit
		}
	}
	b = append(b, e.typeflag, has)
	put(uint64(shared))
	str(e.name[shared:])
	b = binary.AppendVarint(b, e.sec)
	for _, v := range []uint64{uint64(e.nsec), uint64(e.perm), uint64(e.uid), uint64(e.gid), uint64(e.size)} {
		put(v)
	}
	if has&hasLink != 0 {
		str(r.link)
	}
	if has&hasDevice != 0 {
		put(uint64(r.major))
		put(uint64(r.minor))
	}
	if has&hasXattrs != 0 {
		put(uint64(len(r.xattrs)))
		for _, x := range r.xattrs {
			str(x.Name)
			str(string(x.Value))
		}
	}
	if has&hasData != 0 {
		put(uint64(len(r.data)))
		for _, d := range r.data {
			put(uint64(d.Offset))
			put(uint64(d.Length))
		}
	}
	return b
}

// decoder reads an index back, and lets go of what it has read.
type decoder struct {
	idx  *Index
	rest []byte
	name []byte
	err  error
}

var errIndex = errors.New("reading index: damaged (a bug in this package)")

// next decodes the next entry; false at the end, or after an error.
func (d *decoder) next() (e entry, ok bool) {
	for len(d.rest) == 0 {
		if len(d.idx.slabs) == 0 {
			return e, false
		}
		d.rest, d.idx.slabs[0] = d.idx.slabs[0], nil
		d.idx.slabs = d.idx.slabs[1:]
	}
	if len(d.rest) < 2 {
		d.err = errIndex
		return e, false
	}
	has := d.rest[1]
	e.typeflag, d.rest = d.rest[0], d.rest[2:]
	shared := min(d.uint(), uint64(len(d.name)))
	d.name = append(d.name[:shared], d.bytes()...)
	e.name = string(d.name)
	sec, n := binary.Varint(d.rest)
	if n <= 0 {
		d.err = errIndex
		return e, false
	}
	e.sec, d.rest = sec, d.rest[n:]
	e.nsec, e.perm = uint32(d.uint()), uint16(d.uint())
	e.uid, e.gid, e.size = uint32(d.uint()), uint32(d.uint()), int64(d.uint())
	if has != 0 {
		e.rare = d.rareFields(has)
	}
	return e, d.err == nil
}

func (d *decoder) rareFields(has byte) *rare {
	r := &rare{}
	if has&hasLink != 0 {
		r.link = string(d.bytes())
	}
	if has&hasDevice != 0 {
		r.major, r.minor = uint32(d.uint()), uint32(d.uint())
	}
	if has&hasXattrs != 0 {
		r.xattrs = make([]Xattr, 0, d.length())
		for range cap(r.xattrs) {
			r.xattrs = append(r.xattrs, Xattr{string(d.bytes()), append([]byte{}, d.bytes()...)})
		}
	}
	if has&hasData != 0 {
		r.sparse, r.data = true, make([]Range, 0, d.length())
		for range cap(r.data) {
			r.data = append(r.data, Range{int64(d.uint()), int64(d.uint())})
		}
	}
	return r
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.err, d.rest = errIndex, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// length reads a number of things that take at least two bytes each.
func (d *decoder) length() int { return int(min(d.uint(), uint64(len(d.rest)/2))) }

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.rest)) {
		d.err, d.rest = errIndex, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}
