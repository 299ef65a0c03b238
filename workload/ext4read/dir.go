package ext4read

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const maxDirBytes = 1 << 30

type dirEntry struct {
	name  string
	inode uint32
}

// dir lists a directory in byte order of the names, itself and its parent
// apart. The blocks of a hash tree look like unused entries.
func (fs *FS) dir(i *inode, room int) ([]dirEntry, error) {
	if i.size%fs.blockBytes != 0 || i.size > maxDirBytes {
		return nil, fmt.Errorf("directory %d of %d bytes", i.number, i.size)
	}
	r, err := fs.content(i)
	if err != nil {
		return nil, err
	}
	var list []dirEntry
	b := make([]byte, fs.blockBytes)
	for range i.size / fs.blockBytes {
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("directory %d: %w", i.number, err)
		}
		if list, err = dirBlock(list, b); err != nil {
			return nil, fmt.Errorf("directory %d: %w", i.number, err)
		}
		if len(list) > room {
			return nil, fmt.Errorf("more than %d names", room)
		}
	}
	slices.SortFunc(list, func(a, b dirEntry) int { return strings.Compare(a.name, b.name) })
	for n := 1; n < len(list); n++ {
		if list[n].name == list[n-1].name {
			return nil, fmt.Errorf("directory %d holds %q twice", i.number, list[n].name)
		}
	}
	return list, nil
}

func dirBlock(list []dirEntry, b []byte) ([]dirEntry, error) {
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, errors.New("entry cut off")
		}
		inode, length, nameBytes := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6])
		if length < 8 || length%4 != 0 || length > len(b) || 8+nameBytes > length {
			return nil, fmt.Errorf("entry of %d bytes with a name of %d", length, nameBytes)
		}
		name := string(b[8 : 8+nameBytes])
		b = b[length:]
		if inode == 0 || name == "." || name == ".." {
			continue
		}
		if name == "" || strings.ContainsAny(name, "/\x00") {
			return nil, fmt.Errorf("name %q", name)
		}
		list = append(list, dirEntry{name, inode})
	}
	return list, nil
}
