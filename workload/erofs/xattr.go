package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	xattrHead    = 12
	maxXattrBody = 4 * 65535
)

var xattrPrefixes = []struct {
	index  byte
	prefix string
}{{1, "user."}, {4, "trusted."}, {6, "security."}}

// xattrBody is what follows the inode: a header without shared attributes, and
// the attributes. Nil if there are none.
func xattrBody(n *rootfs.Node) ([]byte, error) {
	attrs := n.Xattrs()
	if len(attrs) == 0 {
		return nil, nil
	}
	b := make([]byte, xattrHead)
	for _, x := range attrs {
		index, name, err := splitName(x.Name)
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", x.Name, err)
		}
		if err := x.CheckACL(); err != nil {
			return nil, fmt.Errorf("attribute %q: %w", x.Name, err)
		}
		if len(x.Value) > 65535 {
			return nil, fmt.Errorf("attribute %q: value has %d bytes; EROFS holds 65535", x.Name, len(x.Value))
		}
		b = append(b, byte(len(name)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(x.Value)))
		b = append(append(b, name...), x.Value...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	if len(b) > maxXattrBody {
		return nil, fmt.Errorf("attributes take %d bytes; EROFS holds %d", len(b), maxXattrBody)
	}
	return b, nil
}

func splitName(full string) (index byte, name string, err error) {
	switch full {
	case "system.posix_acl_access":
		return 2, "", nil
	case "system.posix_acl_default":
		return 3, "", nil
	}
	for _, p := range xattrPrefixes {
		if rest, ok := strings.CutPrefix(full, p.prefix); ok && rest != "" && len(rest) <= 255 {
			return p.index, rest, nil
		}
	}
	return 0, "", errors.New("EROFS has no such namespace")
}
