package ext4read

import (
	"errors"
	"fmt"
)

const (
	xattrMagic       = 0xEA020000
	xattrHeaderBytes = 32
	xattrEntryBytes  = 16
)

var xattrPrefix = map[byte]string{1: "user.", 4: "trusted.", 6: "security.", 7: "system."}

// xattrs are an inode's attributes. Access control lists are left out, and
// counted in acls: a tar has no common form for them.
func (fs *FS) xattrs(i *inode) (m map[string]string, acls int, err error) {
	m = map[string]string{}
	if len(i.tail) >= 4 && le.Uint32(i.tail) == xattrMagic {
		if acls, err = xattrEntries(m, i.tail[4:], i.tail[4:]); err != nil {
			return nil, 0, fmt.Errorf("attributes of inode %d: %w", i.number, err)
		}
	}
	if i.acl == 0 {
		return m, acls, nil
	}
	b := make([]byte, fs.blockBytes)
	if err := fs.readBlock(i.acl, b); err != nil {
		return nil, 0, fmt.Errorf("attributes of inode %d: %w", i.number, err)
	}
	if le.Uint32(b) != xattrMagic {
		return nil, 0, fmt.Errorf("attributes of inode %d: no magic", i.number)
	}
	n, err := xattrEntries(m, b[xattrHeaderBytes:], b)
	if err != nil {
		return nil, 0, fmt.Errorf("attributes of inode %d: %w", i.number, err)
	}
	return m, acls + n, nil
}

// xattrEntries reads entries up to a zero word; values are at offsets in base.
func xattrEntries(m map[string]string, e, base []byte) (acls int, err error) {
	for len(e) >= 4 && le.Uint32(e) != 0 {
		if len(e) < xattrEntryBytes {
			return 0, errors.New("cut off")
		}
		nameBytes, index := int(e[0]), e[1]
		off, n := int(le.Uint16(e[2:])), int64(le.Uint32(e[8:]))
		step := (xattrEntryBytes + nameBytes + 3) &^ 3
		if step > len(e) || n > int64(len(base)) || int64(off)+n > int64(len(base)) || le.Uint32(e[4:]) != 0 {
			return 0, errors.New("value lies outside")
		}
		name := string(e[xattrEntryBytes : xattrEntryBytes+nameBytes])
		prefix, ok := xattrPrefix[index]
		switch {
		case index == 2 || index == 3:
			acls++
		case !ok:
			return 0, fmt.Errorf("name index %d", index)
		default:
			if _, dup := m[prefix+name]; dup {
				return 0, fmt.Errorf("%q occurs twice", prefix+name)
			}
			m[prefix+name] = string(base[off : int64(off)+n])
		}
		e = e[step:]
	}
	return acls, nil
}
