package rootfs

import (
	"hash/maphash"
	"slices"
	"strings"
)

// directory is the names in a directory. While layers are merged they stand
// in the order they came, with a hash table beside them once they are many;
// seal puts them in order, and the table away. A Go map would take twice the
// memory, and a sorted copy for every walk besides.
type directory struct {
	entries []Entry  // removed ones have no Node until seal
	table   []uint32 // open addressing: place in entries, plus one
	sealed  bool
}

const (
	scanNames = 8 // up to so many are compared one by one
	nameChunk = 64 << 10
)

// nameSeed keeps a hostile layer from choosing names that collide.
var nameSeed = maphash.MakeSeed()

// find returns the place of name, whether or not it was removed since.
func (d *directory) find(name string) (int, bool) {
	switch {
	case d.sealed:
		return slices.BinarySearchFunc(d.entries, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	case d.table == nil:
		i := slices.IndexFunc(d.entries, func(e Entry) bool { return e.Name == name })
		return i, i >= 0
	}
	for slot := d.slot(name); ; slot = (slot + 1) & (len(d.table) - 1) {
		at := d.table[slot]
		if at == 0 {
			return -1, false
		}
		if d.entries[at-1].Name == name {
			return int(at - 1), true
		}
	}
}

func (d *directory) slot(name string) int {
	return int(maphash.String(nameSeed, name) & uint64(len(d.table)-1))
}

// set gives name a node, in place of any it had.
func (d *directory) set(e Entry) {
	i, ok := d.find(e.Name)
	switch {
	case ok:
		d.entries[i] = e
		return
	case d.sealed:
		d.entries = slices.Insert(d.entries, i, e)
		return
	}
	d.entries = append(d.entries, e)
	switch n := len(d.entries); {
	case d.table == nil && n <= scanNames:
	case n > len(d.table)/4*3:
		d.rehash()
	default:
		d.enter(n - 1)
	}
}

// rehash drops what was removed and makes a table with room to grow.
func (d *directory) rehash() {
	d.compact()
	size := 4 * scanNames
	for size < 2*len(d.entries) {
		size *= 2
	}
	d.table = make([]uint32, size)
	for i := range d.entries {
		d.enter(i)
	}
}

func (d *directory) enter(i int) {
	slot := d.slot(d.entries[i].Name)
	for d.table[slot] != 0 {
		slot = (slot + 1) & (len(d.table) - 1)
	}
	d.table[slot] = uint32(i + 1)
}

func (d *directory) compact() {
	d.entries = slices.DeleteFunc(d.entries, func(e Entry) bool { return e.Node == nil })
}

// seal puts the names in byte order. Names can still be set, but slowly.
func (d *directory) seal() {
	d.compact()
	d.table, d.sealed = nil, true
	if len(d.entries) < cap(d.entries)*7/8 {
		d.entries = append(make([]Entry, 0, len(d.entries)), d.entries...)
	}
	slices.SortFunc(d.entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
}

// child finds a name in a directory; the entry's Node is nil if there is none.
func (n *Node) child(name string) Entry {
	if n.dir == nil {
		return Entry{}
	}
	if i, ok := n.dir.find(name); ok {
		return n.dir.entries[i]
	}
	return Entry{}
}

func (n *Node) set(name string, child *Node, layer int32) {
	if n.dir == nil {
		n.dir = &directory{}
	}
	n.dir.set(Entry{name, child, layer})
}

// remove takes a name out of a directory that is not sealed.
func (n *Node) remove(name string) {
	if n.dir == nil {
		return
	}
	if i, ok := n.dir.find(name); ok {
		n.dir.entries[i].Node = nil
	}
}

// arena keeps nodes and names in few, large pieces of memory. What is
// replaced meanwhile is not given back; Limits bound how much that can be.
type arena struct {
	nodes []Node
	names *strings.Builder
}

func (a *arena) node(n Node) *Node {
	if len(a.nodes) == cap(a.nodes) {
		a.nodes = make([]Node, 0, 512)
	}
	a.nodes = append(a.nodes, n)
	return &a.nodes[len(a.nodes)-1]
}

// name copies a string. A Builder's string stays valid while it is added to.
func (a *arena) name(s string) string {
	if len(s) > nameChunk/16 {
		return strings.Clone(s)
	}
	if a.names == nil || a.names.Cap()-a.names.Len() < len(s) {
		a.names = &strings.Builder{}
		a.names.Grow(nameChunk)
	}
	at := a.names.Len()
	a.names.WriteString(s)
	return a.names.String()[at:]
}
