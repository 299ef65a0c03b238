package btrfs

import "encoding/binary"

const (
	superMagic = "_BHRfS_M"
	superBytes = 4096

	flagWritten = 1
	flagSeeding = 1 << 32

	// Incompatible features.
	mixedBackrefs  = 1 << 0
	bigMetadata    = 1 << 5
	extendedIref   = 1 << 6
	skinnyMetadata = 1 << 8
	noHoles        = 1 << 9
	// Features that matter to who writes.
	withFreeSpaceTree  = 1 << 0
	freeSpaceTreeValid = 1 << 1
)

// super is the superblock or its copy at a place on the disk.
func (l *Layout) super(at uint64) []byte {
	root, rootLevel := l.rest.roots.root()
	chunks, chunkLevel := l.rest.chunks.root()
	r := make(record, 32, superBytes)
	r = r.uuid(l.opts.UUID).u64(at, flagWritten|flagSeeding).text(superMagic).u64(generation, root, chunks, 0, 0)
	r = r.u64(uint64(l.SizeBytes()), l.usedBytes(), rootTreeDir, 1).u32(sectorSize).u32(nodeSize).u32(nodeSize).u32(sectorSize)
	system := l.systemChunks()
	r = r.u32(uint32(len(system))).u64(generation, 0, withFreeSpaceTree|freeSpaceTreeValid,
		mixedBackrefs|bigMetadata|extendedIref|skinnyMetadata|noHoles).u16(0).u8(rootLevel).u8(chunkLevel).u8(0)
	r = l.device(r)
	r = r.text(l.opts.Label).zeros(256-len(l.opts.Label)).u64(0, generation)
	r = r.zeros(superSystem - len(r)).bytes(system)
	r = l.backup(r.zeros(superBackups - len(r)))
	b := []byte(r.zeros(superBytes - len(r)))
	binary.LittleEndian.PutUint32(b, checksum(b[32:]))
	return b
}

const (
	superSystem  = 0x32b
	systemBytes  = 2048
	superBackups = superSystem + systemBytes
)

// usedBytes is what nodes and data take.
func (l *Layout) usedBytes() (n uint64) {
	for _, c := range l.space.chunks {
		n += c.used
	}
	return n
}

// systemChunks are those that the kernel needs to find all others.
func (l *Layout) systemChunks() []byte {
	var r record
	for _, c := range l.space.chunks {
		if c.kind == systemChunk {
			r = l.chunk(r.key(key{firstChunk, chunkItem, c.start}), c)
		}
	}
	return r
}

// backup names the roots once more, for who asks for older ones.
func (l *Layout) backup(r record) record {
	trees := []*tree{&l.rest.roots, &l.rest.chunks, &l.rest.extents, l.fs, &l.rest.devices, l.sums}
	var levels record
	for _, t := range trees {
		at, level := t.root()
		r = r.u64(at, generation)
		levels = levels.u8(level)
	}
	return r.u64(uint64(l.SizeBytes()), l.usedBytes(), 1).zeros(32).bytes(levels).zeros(10)
}
