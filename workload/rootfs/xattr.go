package rootfs

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	paxXattr       = "SCHILY.xattr."
	maxWarnings    = 100
	maxXattrName   = 255
	maxXattrValue  = 64 << 10 // XATTR_SIZE_MAX
	selinuxXattr   = "security.selinux"
	overlayXattrs  = "trusted.overlay."
	posixACLAccess = "system.posix_acl_access"
	posixACLDeflt  = "system.posix_acl_default"
)

// xattrsOf takes the attributes out of a header, sorted by name.
func xattrsOf(hdr *tar.Header, l Limits, idx *Index) ([]Xattr, error) {
	var out []Xattr
	total := 0
	for key, value := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || name == selinuxXattr {
			continue
		}
		if total += len(name) + len(value); total > l.XattrBytes {
			return nil, exceeded("bytes of extended attributes", l.XattrBytes, "more")
		}
		if why := unstorable(hdr.Typeflag, name); why != "" {
			idx.warn(fmt.Sprintf("%q: leaving out attribute %q: %s", shorten(hdr.Name), shorten(name), why))
			continue
		}
		if len(name) > maxXattrName || len(value) > maxXattrValue {
			return nil, fmt.Errorf("attribute %q: name or value is longer than Linux takes (255, 65536 bytes)", shorten(name))
		}
		out = append(out, Xattr{name, []byte(value)})
	}
	slices.SortFunc(out, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// unstorable says why Linux would refuse the attribute, or "".
func unstorable(typeflag byte, name string) string {
	ns, rest, _ := strings.Cut(name, ".")
	switch {
	case name == posixACLAccess, name == posixACLDeflt:
		if typeflag == tar.TypeSymlink {
			return "symlinks have no ACL"
		}
		return ""
	case rest == "" || strings.IndexByte(name, 0) >= 0:
		return "not a valid name"
	case strings.HasPrefix(name, overlayXattrs):
		return "it is overlayfs's own, and would hide the file or its content"
	case ns == "trusted", ns == "security":
		return ""
	case ns == "user":
		switch typeflag {
		case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir, tar.TypeLink:
			return ""
		}
		return "user attributes exist on files and directories only"
	}
	return "unknown namespace"
}

// CheckACL refuses an ACL that the kernel could not read back from a disk: it
// would keep everybody from the file (posix_acl_from_xattr, fs/posix_acl.c).
// Other attributes pass.
func (x Xattr) CheckACL() error {
	v := x.Value
	switch {
	case x.Name != posixACLAccess && x.Name != posixACLDeflt:
		return nil
	case len(v) < 4 || len(v)%8 != 4 || binary.LittleEndian.Uint32(v) != 2:
		return errors.New("not a POSIX ACL of version 2")
	}
	for e := v[4:]; len(e) > 0; e = e[8:] {
		switch binary.LittleEndian.Uint16(e) {
		case 0x02, 0x08: // a user, a group
			if binary.LittleEndian.Uint32(e[4:]) == 1<<32-1 {
				return errors.New("POSIX ACL that names nobody")
			}
		case 0x01, 0x04, 0x10, 0x20: // owner, owning group, mask, others
		default:
			return errors.New("POSIX ACL with an unknown tag")
		}
	}
	return nil
}

func (idx *Index) warn(s string) {
	if len(idx.warnings) < maxWarnings {
		idx.warnings = append(idx.warnings, s)
	}
}
