package btrfs

import "encoding/binary"

// seal completes a node for its place on the disk.
func (l *Layout) seal(b []byte, at, owner uint64, level uint8) {
	const written, mixedBackrefs = 1, 1 << 56
	items := binary.LittleEndian.Uint32(b[itemsOffset:])
	record(b[:32]).uuid(l.opts.UUID).u64(at, written|mixedBackrefs).uuid(l.ids.chunkTree).
		u64(generation, owner).u32(items).u8(level)
	binary.LittleEndian.PutUint32(b, checksum(b[32:]))
}

// upper fills b with a node that points to others.
func (l *Layout) upper(b []byte, t *tree, level, i int) {
	children := t.below(level, i)
	r := record(b[:headerBytes])
	for _, c := range children {
		r = r.key(c.first).u64(c.at, generation)
	}
	binary.LittleEndian.PutUint32(b[itemsOffset:], uint32(len(children)))
	l.seal(b, t.levels[level][i].at, t.owner, uint8(level))
}
