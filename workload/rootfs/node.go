package rootfs

import (
	"math"
	"slices"
	"sort"
	"time"
)

// Kind is the type of a file.
type Kind uint8

// The kinds a tar archive can hold. The zero Kind is invalid.
const (
	Regular Kind = iota + 1
	Directory
	Symlink
	CharDevice
	BlockDevice
	FIFO
)

var kindNames = [...]string{"invalid", "regular file", "directory", "symlink", "character device", "block device", "FIFO"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[0]
}

// Xattr is one extended attribute. Name is the full name ("user.x").
type Xattr struct {
	Name  string
	Value []byte
}

// Range is a run of bytes in a file.
type Range struct{ Offset, Length int64 }

// Node is one inode. Callers read its fields and do not change them.
type Node struct {
	Kind         Kind
	Perm         uint16 // 07777: permissions, setuid, setgid, sticky
	UID, GID     uint32
	Major, Minor uint32 // devices only
	Links        uint32 // names of a non-directory; valid after Tree.Nodes
	Size         int64  // logical bytes; regular files only

	index   int32 // position in Tree.Nodes
	nsec    uint32
	sec     int64
	layer   int32      // where the content is: layer number, or generatedLayer
	ordinal int32      // header number in that layer, or number of the generated file
	dir     *directory // nil also for an empty one
	extra   *extra
}

// extra holds what few inodes have.
type extra struct {
	target  string
	xattrs  []Xattr
	content []byte
	data    []Range
	sparse  bool
}

const (
	generatedLayer = math.MaxInt32
	noLayer        = -1
)

// Target is a symlink's target.
func (n *Node) Target() string {
	if n.extra == nil {
		return ""
	}
	return n.extra.target
}

// Xattrs are sorted by name.
func (n *Node) Xattrs() []Xattr {
	if n.extra == nil {
		return nil
	}
	return n.extra.xattrs
}

// Data says where a sparse file has data, in ranges that start and (but for
// the file's end) stop at multiples of 4096 bytes. The second result is false
// for a file that was not stored sparsely: all of it is data.
func (n *Node) Data() ([]Range, bool) {
	if n.extra == nil || !n.extra.sparse {
		return nil, false
	}
	return n.extra.data, true
}

// ModTime is the modification time, in UTC.
func (n *Node) ModTime() time.Time { return time.Unix(n.sec, int64(n.nsec)).UTC() }

// Index is the node's position in the last result of Tree.Nodes.
func (n *Node) Index() int { return int(n.index) }

// Entry is a name in a directory.
type Entry struct {
	Name string
	Node *Node
	// layer last listed the name: the inode's own layer would not do, because
	// a hard link is newer than its inode.
	layer int32
}

// Children lists a directory in byte order of the names. The caller must not
// change the list.
func (n *Node) Children() []Entry {
	if n.dir == nil {
		return nil
	}
	return n.dir.entries
}

// ChildCount is the number of names in a directory.
func (n *Node) ChildCount() int { return len(n.Children()) }

func (n *Node) more() *extra {
	if n.extra == nil {
		n.extra = &extra{}
	}
	return n.extra
}

// setXattrs adds to or overwrites the node's attributes.
func (n *Node) setXattrs(xs []Xattr) {
	for _, x := range xs {
		cur := n.more().xattrs
		i := sort.Search(len(cur), func(i int) bool { return cur[i].Name >= x.Name })
		if i < len(cur) && cur[i].Name == x.Name {
			cur[i] = x
			continue
		}
		n.extra.xattrs = slices.Insert(cur, i, x)
	}
}
