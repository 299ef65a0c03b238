package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = "/.wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// atLayer adds the layer's number to an error.
func atLayer(i int, err error) error {
	if err == nil {
		return nil
	}
	var ee *EntryError
	if errors.As(err, &ee) {
		return &EntryError{i + 1, ee.Path, ee.Err}
	}
	return &EntryError{Layer: i + 1, Err: err}
}

// Merge returns the tree that the layers make, lowest first. indexes[i] is what
// Scan said of layers[i]. It takes the indexes apart as it goes; they cannot be
// used again. Errors are *EntryError; see Limits for refusals.
func Merge(layers []Layer, indexes []*Index, limits Limits) (*Tree, error) {
	if len(layers) != len(indexes) {
		return nil, fmt.Errorf("merging: %d layers but %d indexes", len(layers), len(indexes))
	}
	m := &merger{tree: newTree(layers), limits: limits.withDefaults()}
	for _, idx := range indexes {
		m.entries += int(idx.count)
	}
	m.tree.layerBytes = m.limits.LayerBytes
	for i, idx := range indexes {
		m.layer = int32(i)
		if err := m.apply(idx); err != nil {
			return nil, atLayer(i, err)
		}
		for _, w := range idx.warnings {
			m.tree.warn(fmt.Sprintf("layer %d: %s", i+1, w))
		}
		m.tree.fingerprints = append(m.tree.fingerprints, idx.fingerprint)
		m.tree.headers = append(m.tree.headers, idx.count)
	}
	m.tree.root.seal()
	return m.tree, nil
}

func (m *merger) apply(idx *Index) error {
	d := decoder{idx: idx}
	for ordinal := int32(0); ; ordinal++ {
		e, ok := d.next()
		if !ok {
			return d.err
		}
		if e.typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := m.applyEntry(&e, ordinal); err != nil {
			return &EntryError{Path: e.name, Err: err}
		}
	}
}

func (m *merger) applyEntry(e *entry, ordinal int32) error {
	if e.name == "/" {
		if e.typeflag != tar.TypeDir {
			return errors.New("the root must be a directory")
		}
		m.setMeta(m.tree.root, e)
		return nil
	}
	dirName, base := path.Split(e.name)
	if strings.HasPrefix(e.name, whiteoutMeta) && e.name != "/"+whiteoutOpaque {
		return nil // AUFS bookkeeping
	}
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return m.whiteout(dirName, hidden)
	}
	dir, err := m.parent(dirName)
	if err != nil {
		return err
	}
	return m.place(dir, base, e, ordinal)
}

// place puts an entry at its name.
func (m *merger) place(dir *Node, base string, e *entry, ordinal int32) error {
	old := dir.child(base)
	if e.typeflag == tar.TypeDir && old.Node != nil && old.Node.Kind == Directory {
		m.setMeta(old.Node, e)
		dir.set(old.Name, old.Node, m.layer)
		return nil
	}
	dir.remove(base)
	if e.typeflag == tar.TypeLink {
		return m.link(dir, base, e)
	}
	if e.isWhiteoutDevice() {
		return nil
	}
	dir.set(m.arena.name(base), m.newNode(e, ordinal), m.layer)
	return nil
}

func (m *merger) newNode(e *entry, ordinal int32) *Node {
	r := e.more()
	n := m.arena.node(Node{layer: m.layer, ordinal: ordinal, Major: r.major, Minor: r.minor})
	switch e.typeflag {
	case tar.TypeReg:
		n.Kind, n.Size = Regular, e.size
		if r.sparse {
			n.more().sparse, n.more().data = true, r.data
		}
	case tar.TypeDir:
		n.Kind = Directory
	case tar.TypeSymlink:
		n.Kind = Symlink
		n.more().target = m.arena.name(r.link)
	case tar.TypeChar:
		n.Kind = CharDevice
	case tar.TypeBlock:
		n.Kind = BlockDevice
	case tar.TypeFifo:
		n.Kind = FIFO
	}
	m.setMeta(n, e)
	return n
}

// setMeta gives a node the metadata of a header that describes all of it.
func (m *merger) setMeta(n *Node, e *entry) {
	n.setOwner(e)
	if n.extra != nil {
		n.extra.xattrs = nil
	}
	n.setXattrs(e.more().xattrs)
}

func (n *Node) setOwner(e *entry) {
	n.UID, n.GID, n.sec, n.nsec = e.uid, e.gid, e.sec, e.nsec
	n.Perm = e.perm
	if n.Kind == Symlink {
		n.Perm = 0o777 // Linux has no chmod for links
	}
}

// link adds a name to an existing inode. Like link(2) it follows links in the
// target's parents only.
func (m *merger) link(dir *Node, base string, e *entry) error {
	link := e.more().link
	dirName, targetBase := path.Split(link)
	from, err := m.existing(dirName)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", shorten(link), err)
	}
	target := from.child(targetBase).Node
	if target == nil {
		return fmt.Errorf("hard link to %q, which does not exist", shorten(link))
	}
	if target.Kind == Directory {
		return fmt.Errorf("hard link to %q, which is a directory", shorten(link))
	}
	target.setOwner(e)
	for _, x := range e.more().xattrs {
		if unstorable(typeflagOf(target.Kind), x.Name) == "" {
			target.setXattrs([]Xattr{x})
		}
	}
	dir.set(m.arena.name(base), target, m.layer)
	return nil
}

func typeflagOf(k Kind) byte {
	switch k {
	case Regular:
		return tar.TypeReg
	case Symlink:
		return tar.TypeSymlink
	}
	return tar.TypeFifo // any kind that takes no user attributes
}

// whiteout hides a name of lower layers, or all a directory had of them. If
// there is no such directory, there is nothing to hide and none is made: layers
// say ".wh.dir" and then "dir/.wh.file".
func (m *merger) whiteout(dirName, name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("whiteout of %q: not a name", name)
	}
	dir, err := m.existing(dirName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	if name == whiteoutOpaque[len(whiteoutPrefix):] {
		m.prune(dir)
		return nil
	}
	if e := dir.child(name); e.Node != nil && !m.keep(e) {
		dir.remove(name)
	}
	return nil
}

// prune removes from a directory what this layer did not bring, and says
// whether anything stays.
func (m *merger) prune(n *Node) (rest bool) {
	if n.dir == nil {
		return false
	}
	for i := range n.dir.entries {
		e := &n.dir.entries[i]
		if e.Node != nil && !m.keep(*e) {
			e.Node = nil
		}
		rest = rest || e.Node != nil
	}
	return rest
}

// keep prunes below e and tells whether any of it is this layer's. A directory
// that is only implied by its contents loses the lower layer's metadata: it is
// not that directory any more.
func (m *merger) keep(e Entry) bool {
	if e.Node.Kind != Directory {
		return e.layer == m.layer
	}
	rest := m.prune(e.Node)
	if e.layer == m.layer {
		return true
	}
	if !rest {
		return false
	}
	m.setMeta(e.Node, &entry{perm: impliedPerm})
	return true
}

// seal puts every directory in order.
func (n *Node) seal() {
	if n.dir == nil {
		return
	}
	n.dir.seal()
	for _, e := range n.dir.entries {
		e.Node.seal()
	}
}
