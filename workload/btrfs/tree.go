package btrfs

import (
	"encoding/binary"
	"fmt"
)

// itemsOffset is where a node's header has the number of its items.
const itemsOffset = 96

// tree is where the nodes of one tree are: leaves first, the root last.
type tree struct {
	owner   uint64
	levels  [][]node
	settled int // leaves that have a place
}

type node struct {
	first key
	at    uint64
}

// grow makes the levels above the leaves.
func (t *tree) grow() {
	t.levels = t.levels[:1]
	for below := t.levels[0]; len(below) > 1; below = t.levels[len(t.levels)-1] {
		var level []node
		for i := 0; i < len(below); i += nodePointers {
			level = append(level, node{first: below[i].first})
		}
		t.levels = append(t.levels, level)
	}
}

func (t *tree) root() (at uint64, level uint8) {
	top := len(t.levels) - 1
	return t.levels[top][0].at, uint8(top)
}

// usedBytes is what all nodes take.
func (t *tree) usedBytes() (n uint64) {
	for _, level := range t.levels {
		n += uint64(len(level)) * nodeSize
	}
	return n
}

// below are the children of a node that is not a leaf.
func (t *tree) below(level, i int) []node {
	all := t.levels[level-1]
	return all[i*nodePointers : min((i+1)*nodePointers, len(all))]
}

// packer puts items into leaves in the order of their keys, and gives each
// leaf that is full to done. Planning needs only the first keys: without spare
// no bytes are kept, and leaf is nil.
type packer struct {
	spare *spare
	done  func(first key, leaf []byte) error // leaf lacks its header

	leaf        []byte
	first, last key
	items, data int // number of items, bytes of data
	closed      bool
}

// add is a putFunc.
func (p *packer) add(k key, data []byte) error {
	switch {
	case len(data) > maxItem:
		return fmt.Errorf("item of %d bytes does not fit in a leaf (a bug in this package)", len(data))
	case (p.items > 0 || p.closed) && !p.last.before(k):
		return fmt.Errorf("item %v after %v (a bug in this package)", k, p.last)
	case (p.items+1)*itemBytes+p.data+len(data) > leafSpace:
		if err := p.close(); err != nil {
			return err
		}
	}
	if p.items == 0 {
		p.first = k
	}
	if p.spare != nil {
		p.store(k, data)
	}
	p.last = k
	p.items++
	p.data += len(data)
	return nil
}

// store writes the item's head at the front of the leaf, its data at the back.
func (p *packer) store(k key, data []byte) {
	p.begin()
	at := leafSpace - p.data - len(data)
	head := record(p.leaf[:headerBytes+p.items*itemBytes])
	head.key(k).u32(uint32(at)).u32(uint32(len(data)))
	copy(p.leaf[headerBytes+at:], data)
}

func (p *packer) begin() {
	if p.leaf == nil {
		p.leaf = p.spare.get()
	}
}

// spare is nodes that have been written: their memory serves again.
type spare struct{ free [][]byte }

func (s *spare) get() []byte {
	n := len(s.free)
	if n == 0 {
		return make([]byte, nodeSize)
	}
	b := s.free[n-1]
	s.free = s.free[:n-1]
	clear(b)
	return b
}

func (s *spare) put(b []byte) { s.free = append(s.free, b) }

// close gives away the leaf that is not full. A tree of no items is one leaf.
func (p *packer) close() error {
	if p.items == 0 && p.closed {
		return nil
	}
	if p.spare != nil {
		p.begin()
		binary.LittleEndian.PutUint32(p.leaf[itemsOffset:], uint32(p.items))
	}
	leaf := p.leaf
	p.leaf, p.items, p.data, p.closed = nil, 0, 0, true
	return p.done(p.first, leaf)
}
