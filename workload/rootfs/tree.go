package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// Layer is one layer of an image. Open returns its uncompressed tar from the
// start. It is called once for each Tree.Contents, and must give the bytes that
// Scan saw. Readers are read to io.EOF, so one that verifies a digest may report
// a mismatch there.
type Layer interface {
	Open(ctx context.Context) (io.ReadCloser, error)
}

// impliedPerm is what a directory gets that no layer describes.
const impliedPerm = 0o755

// Tree is a merged root file system. It is not safe for concurrent changes.
type Tree struct {
	root         *Node
	layers       []Layer
	fingerprints [][32]byte
	headers      []int32
	layerBytes   int64 // Limits.LayerBytes, for the second pass
	generated    int32
	warnings     []string
}

func newTree(layers []Layer) *Tree {
	return &Tree{root: &Node{Kind: Directory, Perm: impliedPerm, layer: noLayer, ordinal: noLayer}, layers: layers}
}

// Root is the root directory.
func (t *Tree) Root() *Node { return t.root }

// Warnings say what was left out, at most 100 lines.
func (t *Tree) Warnings() []string { return t.warnings }

func (t *Tree) warn(s string) {
	if len(t.warnings) < maxWarnings {
		t.warnings = append(t.warnings, s)
	}
}

// Lookup finds a path without following any symlink; nil if there is none.
func (t *Tree) Lookup(p string) *Node {
	n := t.root
	for rest := path.Clean("/" + p)[1:]; rest != "" && n != nil; {
		var comp string
		comp, rest, _ = strings.Cut(rest, "/")
		n = n.child(comp).Node
	}
	return n
}

// Nodes lists every inode once, in an order that depends on the tree alone:
// parents before children, names in byte order, a hard-linked inode at its first
// name. It also sets each Node's Index and Links. The result is valid until the
// tree is changed.
func (t *Tree) Nodes() []*Node {
	names := 1
	t.root.each(func(n *Node) {
		n.index, n.Links = -1, 0
		names += n.ChildCount()
	})
	out := make([]*Node, 0, names)
	add := func(n *Node) {
		if n.Links++; n.index < 0 {
			n.index = int32(len(out))
			out = append(out, n)
		}
	}
	t.root.each(add)
	return out
}

// each calls f for n and every name below it, in the order of Walk.
func (n *Node) each(f func(*Node)) {
	f(n)
	for _, e := range n.Children() {
		e.Node.each(f)
	}
}

// Walk visits every name, the root ("/") first, parents before children, names
// in byte order; it stops when visit returns false.
func (t *Tree) Walk(visit func(p string, n *Node) bool) {
	walk("/", t.root, visit)
}

// Quoted is a path of n, quoted and shortened for an error message.
func (t *Tree) Quoted(n *Node) string {
	found := "/"
	t.Walk(func(p string, m *Node) bool {
		if m == n {
			found = p
		}
		return m != n
	})
	return fmt.Sprintf("%q", shorten(found))
}

func walk(p string, n *Node, visit func(string, *Node) bool) bool {
	if !visit(p, n) {
		return false
	}
	for _, e := range n.Children() {
		if !walk(path.Join(p, e.Name), e.Node, visit) {
			return false
		}
	}
	return true
}

// Files lists the regular files in the order in which Contents visits them.
func (t *Tree) Files() []*Node {
	files := slices.DeleteFunc(t.Nodes(), func(n *Node) bool { return n.Kind != Regular })
	slices.SortFunc(files, func(a, b *Node) int {
		if a.layer != b.layer {
			return int(a.layer) - int(b.layer)
		}
		return int(a.ordinal) - int(b.ordinal)
	})
	return files
}

// AddFile puts a generated file into the tree, owned by uid and gid, dated to
// the Unix epoch. Whatever had the name is replaced; a symlink there is not
// followed, and one in the parent path is refused, because the image could
// otherwise move the file. The content is kept, not copied.
func (t *Tree) AddFile(p string, mode, uid, gid uint32, content []byte) error {
	dir, base, err := t.plainParent(p)
	if err != nil {
		return fmt.Errorf("adding file %q: %w", p, err)
	}
	if mode&^0o7777 != 0 {
		return fmt.Errorf("adding file %q: mode must be within 07777, got %#o", p, mode)
	}
	n := &Node{Kind: Regular, Perm: uint16(mode), UID: uid, GID: gid, Size: int64(len(content)),
		layer: generatedLayer, ordinal: t.generated}
	t.generated++
	n.more().content = content
	dir.set(base, n, generatedLayer)
	return nil
}

// EnsureDir makes sure that there is a real directory at p, for a mount point.
// One that exists is left as it is; a file or symlink is replaced, since what
// is mounted there hides it anyway. A new one belongs to root.
func (t *Tree) EnsureDir(p string, mode uint32) error {
	dir, base, err := t.plainParent(p)
	if err != nil {
		return fmt.Errorf("making directory %q: %w", p, err)
	}
	if mode&^0o7777 != 0 {
		return fmt.Errorf("making directory %q: mode must be within 07777, got %#o", p, mode)
	}
	if old := dir.child(base).Node; old != nil && old.Kind == Directory {
		return nil
	}
	dir.set(base, &Node{Kind: Directory, Perm: uint16(mode), layer: generatedLayer, ordinal: noLayer}, generatedLayer)
	return nil
}

var errNotPlain = errors.New("parent is missing or not a plain directory (links are not followed here)")

// plainParent finds the directory that holds p, following no link.
func (t *Tree) plainParent(p string) (*Node, string, error) {
	clean, err := cleanPath(p, Limits{}.withDefaults())
	if err != nil {
		return nil, "", err
	}
	dirName, base := path.Split(clean)
	if base == "" {
		return nil, "", fmt.Errorf("the root cannot be replaced")
	}
	dir := t.Lookup(dirName)
	if dir == nil || dir.Kind != Directory {
		return nil, "", errNotPlain
	}
	return dir, base, nil
}

// ClampTime sets every modification time later than limit to limit, as
// SOURCE_DATE_EPOCH asks for.
func (t *Tree) ClampTime(limit time.Time) {
	t.root.each(func(n *Node) {
		if n.ModTime().After(limit) {
			n.sec, n.nsec = limit.Unix(), uint32(limit.Nanosecond())
		}
	})
}
