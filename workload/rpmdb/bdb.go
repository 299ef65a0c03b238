package rpmdb

import (
	"encoding/binary"
)

// Page types and item types of Berkeley DB's dbinc/db_page.h.
const (
	bdbMagic       = 0x061561 // of a hash
	bdbHeader      = 26       // bytes before a page's index or data
	bdbUnsorted    = 2
	bdbOverflow    = 7
	bdbMeta        = 8
	bdbHash        = 13
	bdbItemHere    = 1
	bdbItemOffPage = 3
)

// bdbOrder is the byte order of the file, nil if it is no hash.
func bdbOrder(head []byte) binary.ByteOrder {
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if o.Uint32(head[12:]) == bdbMagic {
			return o
		}
	}
	return nil
}

type bdbFile struct {
	*file
	order binary.ByteOrder
	page  int64
	seen  map[uint32]bool // overflow pages
}

// bdb reads every value of a hash: pages of items, large ones elsewhere.
func (f *file) bdb(head []byte, visit func([]byte) error) error {
	b := &bdbFile{file: f, order: bdbOrder(head), seen: map[uint32]bool{}}
	b.page = int64(b.order.Uint32(head[20:]))
	if b.page < 512 || b.page > 65536 || b.page&(b.page-1) != 0 || head[24] != 0 || head[25] != bdbMeta {
		return damaged("Berkeley DB of type %d with pages of %d bytes, encryption %d", head[25], b.page, head[24])
	}
	for off := b.page; off+b.page <= f.size; off += b.page {
		page, err := f.bytes(off, b.page)
		if err != nil {
			return err
		}
		if page[25] != bdbHash && page[25] != bdbUnsorted {
			continue
		}
		n := int64(b.order.Uint16(page[20:]))
		if bdbHeader+2*n > b.page {
			return damaged("Berkeley DB page of %d items", n)
		}
		for i := int64(1); i < n; i += 2 { // keys at even places
			key, value := int64(b.order.Uint16(page[bdbHeader+2*i-2:])), int64(b.order.Uint16(page[bdbHeader+2*i:]))
			if value >= key || key > b.page { // items grow down from the page's end
				return damaged("Berkeley DB item at %d after one at %d", value, key)
			}
			if err := b.value(page[value:key], visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bdbFile) value(item []byte, visit func([]byte) error) error {
	switch {
	case item[0] == bdbItemHere && len(item) < 1+8+4*16:
		return nil // rpm's own counter, too short for a header of name, version, release
	case item[0] == bdbItemHere:
		if err := b.take(int64(len(item))); err != nil {
			return err
		}
		return visit(item[1:])
	case item[0] != bdbItemOffPage || len(item) < 12:
		return damaged("Berkeley DB item of type %d", item[0])
	}
	next, length := b.order.Uint32(item[4:]), int64(b.order.Uint32(item[8:]))
	if err := b.take(length); err != nil {
		return err
	}
	blob := make([]byte, 0, min(length, b.size))
	for int64(len(blob)) < length {
		if next == 0 || b.seen[next] {
			return damaged("Berkeley DB overflow page %d", next)
		}
		b.seen[next] = true
		page, err := b.bytes(int64(next)*b.page, b.page)
		if err != nil {
			return err
		}
		used := int64(b.order.Uint16(page[22:]))
		if page[25] != bdbOverflow || used == 0 || bdbHeader+used > b.page {
			return damaged("Berkeley DB overflow page of type %d with %d bytes", page[25], used)
		}
		blob = append(blob, page[bdbHeader:bdbHeader+used]...)
		next = b.order.Uint32(page[16:])
	}
	return visit(blob[:length])
}
