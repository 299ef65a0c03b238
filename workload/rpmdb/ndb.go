package rpmdb

import (
	"encoding/binary"
)

const (
	ndbPage    = 4096
	ndbSlot    = 16
	ndbUnit    = 16
	maxNDBPage = 1 << 14
)

// ndb reads rpm's own format (lib/backend/ndb/rpmpkg.c): a header, pages of
// slots, and the packages that they point to. Little endian.
func (f *file) ndb(head []byte, visit func([]byte) error) error {
	pages := int64(binary.LittleEndian.Uint32(head[12:]))
	if v := binary.LittleEndian.Uint32(head[4:]); v != 0 || pages == 0 || pages > maxNDBPage {
		return damaged("ndb version %d with %d slot pages", v, pages)
	}
	for i := range pages {
		page, err := f.bytes(i*ndbPage, ndbPage)
		if err != nil {
			return err
		}
		if i == 0 {
			page = page[2*ndbSlot:]
		}
		for ; len(page) > 0; page = page[ndbSlot:] {
			id, at := binary.LittleEndian.Uint32(page[4:]), int64(binary.LittleEndian.Uint32(page[8:]))*ndbUnit
			if string(page[:4]) != "Slot" {
				return damaged("ndb slot %q", page[:4])
			}
			if id == 0 {
				continue // free
			}
			if err := f.ndbBlob(id, at, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *file) ndbBlob(id uint32, at int64, visit func([]byte) error) error {
	h, err := f.bytes(at, 16)
	if err != nil {
		return err
	}
	if string(h[:4]) != "BlbS" || binary.LittleEndian.Uint32(h[4:]) != id {
		return damaged("ndb blob of package %d", id)
	}
	n := int64(binary.LittleEndian.Uint32(h[12:]))
	if err := f.take(n); err != nil {
		return err
	}
	b, err := f.bytes(at+16, n)
	if err != nil {
		return err
	}
	return visit(b)
}
