package rpmdb

import (
	"encoding/binary"
)

// sqliteFile is a database file (https://sqlite.org/fileformat2.html). Only
// what a table without special features needs is read.
type sqliteFile struct {
	*file
	page   int64
	usable int64 // bytes of a page
	seen   map[uint32]bool
}

// sqlite reads the second column of table Packages.
func (f *file) sqlite(head []byte, visit func([]byte) error) error {
	s := &sqliteFile{file: f, page: int64(binary.BigEndian.Uint16(head[16:])), seen: map[uint32]bool{}}
	if s.page == 1 {
		s.page = 65536
	}
	s.usable = s.page - int64(head[20])
	if s.page < 512 || s.page&(s.page-1) != 0 || s.usable < 480 {
		return damaged("SQLite pages of %d bytes, %d reserved", s.page, head[20])
	}
	root := uint32(0)
	err := s.table(1, 0, func(row []byte) error {
		c, err := columns(row, 4)
		if err == nil && string(c[0]) == "table" && string(c[1]) == "Packages" && len(c[3]) <= 4 {
			for _, b := range c[3] { // an integer, as long as it needs to be
				root = root<<8 | uint32(b)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return damaged("no table Packages")
	}
	return s.table(root, 0, func(row []byte) error {
		c, err := columns(row, 2)
		if err != nil {
			return err
		}
		return visit(c[1])
	})
}

// maxDepth of a b-tree; SQLite's own limit is 20.
const maxDepth = 20

// table walks the b-tree below page number n.
func (s *sqliteFile) table(n uint32, depth int, visit func([]byte) error) error {
	if n == 0 || s.seen[n] || depth > maxDepth {
		return damaged("SQLite page %d twice, or too deep", n)
	}
	s.seen[n] = true
	b, err := s.bytes((int64(n)-1)*s.page, s.page)
	if err != nil {
		return err
	}
	at := int64(0)
	if n == 1 {
		at = 100
	}
	kind, cells := b[at], int64(binary.BigEndian.Uint16(b[at+3:]))
	pointers := at + 8
	if kind == 5 {
		pointers += 4
	}
	if kind != 5 && kind != 13 || pointers+2*cells > s.usable {
		return damaged("SQLite page %d of type %d with %d cells", n, kind, cells)
	}
	for i := range cells {
		off := int64(binary.BigEndian.Uint16(b[pointers+2*i:]))
		if off+4 > s.usable {
			return damaged("SQLite cell at %d", off)
		}
		if kind == 5 {
			err = s.table(binary.BigEndian.Uint32(b[off:]), depth+1, visit)
		} else {
			err = s.leaf(b[off:s.usable], visit)
		}
		if err != nil {
			return err
		}
	}
	if kind == 5 {
		return s.table(binary.BigEndian.Uint32(b[at+8:]), depth+1, visit)
	}
	return nil
}

// leaf reads a row, and what of it is on overflow pages.
func (s *sqliteFile) leaf(cell []byte, visit func([]byte) error) error {
	length, n := varint(cell)
	_, m := varint(cell[n:]) // row id
	if n == 0 || m == 0 || length < 0 {
		return damaged("SQLite cell")
	}
	if err := s.take(length); err != nil {
		return err
	}
	cell = cell[n+m:]
	local := length
	if limit := s.usable - 35; length > limit {
		least := (s.usable-12)*32/255 - 23
		if local = least + (length-least)%(s.usable-4); local > limit {
			local = least
		}
	}
	if local > int64(len(cell)) || length > local && local+4 > int64(len(cell)) {
		return damaged("SQLite cell with %d bytes here", local)
	}
	row := append(make([]byte, 0, length), cell[:local]...)
	if length > local {
		next := binary.BigEndian.Uint32(cell[local:])
		for rest := length - local; rest > 0; rest = length - int64(len(row)) {
			if next == 0 || s.seen[next] {
				return damaged("SQLite overflow page %d", next)
			}
			s.seen[next] = true
			b, err := s.bytes((int64(next)-1)*s.page, s.usable)
			if err != nil {
				return err
			}
			row = append(row, b[4:4+min(rest, s.usable-4)]...)
			next = binary.BigEndian.Uint32(b)
		}
	}
	return visit(row)
}

// columns returns the first n values of a record; integers as they are stored.
func columns(row []byte, n int) ([][]byte, error) {
	size, k := varint(row)
	if k == 0 || size < int64(k) || size > int64(len(row)) {
		return nil, damaged("SQLite record header")
	}
	types, data := row[k:size], row[size:]
	var out [][]byte
	for len(out) < n {
		t, k := varint(types)
		if k == 0 || t < 0 {
			return nil, damaged("SQLite record of %d columns, expected %d", len(out), n)
		}
		types = types[k:]
		length := (t - 12) / 2
		if t < 12 {
			length = [...]int64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0}[t]
		}
		if length > int64(len(data)) {
			return nil, damaged("SQLite column of %d bytes", length)
		}
		out, data = append(out, data[:length]), data[length:]
	}
	return out, nil
}

// varint reads SQLite's: up to eight bytes of seven bits, then one of eight.
// It returns 0 bytes read when b is too short.
func varint(b []byte) (v int64, n int) {
	for i, c := range b {
		if i == 8 {
			return v<<8 | int64(c), 9
		}
		v = v<<7 | int64(c&0x7f)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
