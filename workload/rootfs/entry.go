package rootfs

import "archive/tar"

// entry is one tar header. Its position in the index is its ordinal.
type entry struct {
	name      string // cleaned and absolute
	rare      *rare  // nil if all of it is zero
	sec, size int64
	uid, gid  uint32
	nsec      uint32
	perm      uint16
	typeflag  byte
}

// rare is what few headers have.
type rare struct {
	link         string // as it stands for symlinks, cleaned and absolute for hard links
	major, minor uint32
	xattrs       []Xattr
	data         []Range
	sparse       bool
}

// isWhiteoutDevice tells whether overlayfs would take the file for a deletion.
// So does plain Podman, whose storage is overlayfs, and a guest with EROFS.
func (e *entry) isWhiteoutDevice() bool {
	r := e.more()
	return e.typeflag == tar.TypeChar && r.major == 0 && r.minor == 0
}

// more returns the rare fields for reading.
func (e *entry) more() rare {
	if e.rare == nil {
		return rare{}
	}
	return *e.rare
}

func (e *entry) rareFields() *rare {
	if e.rare == nil {
		e.rare = &rare{}
	}
	return e.rare
}
