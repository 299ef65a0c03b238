package btrfs

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	sectorSize = 4096
	nodeSize   = 16 << 10
	stripeSize = 64 << 10 // chunks begin and end at multiples of it

	headerBytes  = 101
	itemBytes    = 25 // key, offset, size
	pointerBytes = 33 // key, address, generation
	leafSpace    = nodeSize - headerBytes
	maxItem      = leafSpace - itemBytes
	nodePointers = leafSpace / pointerBytes
)

// generation is the number of the one transaction that wrote everything.
const generation = 1

// Trees are told apart by their owner.
const (
	rootTree      = 1
	extentTree    = 2
	chunkTree     = 3
	devTree       = 4
	fsTree        = 5
	csumTree      = 7
	uuidTree      = 9
	freeSpaceTree = 10
	relocTree     = 1<<64 - 9

	rootTreeDir = 6
	firstInode  = 256
	firstChunk  = 256
	csumObject  = 1<<64 - 10
	devID       = 1
)

// Item types, in the order of their keys.
const (
	inodeItem       = 1
	inodeRef        = 12
	inodeExtref     = 13
	xattrItem       = 24
	dirItem         = 84
	dirIndex        = 96
	extentData      = 108
	extentCsum      = 128
	rootItem        = 132
	extentItem      = 168
	metadataItem    = 169
	treeBlockRef    = 176
	extentDataRef   = 178
	blockGroupItem  = 192
	freeSpaceInfo   = 198
	freeSpaceExtent = 199
	devExtent       = 204
	devItem         = 216
	chunkItem       = 228
	uuidSubvolume   = 251
)

// Kinds of chunks.
const (
	dataChunk   = 1
	systemChunk = 2
	metaChunk   = 4
)

// key is where an item stands in its tree.
type key struct {
	object uint64
	kind   uint8
	offset uint64
}

func (k key) before(o key) bool {
	switch {
	case k.object != o.object:
		return k.object < o.object
	case k.kind != o.kind:
		return k.kind < o.kind
	}
	return k.offset < o.offset
}

// record is bytes of an item; everything is little endian and nothing aligned.
type record []byte

func (r record) u8(v uint8) record       { return append(r, v) }
func (r record) u16(v uint16) record     { return binary.LittleEndian.AppendUint16(r, v) }
func (r record) u32(v uint32) record     { return binary.LittleEndian.AppendUint32(r, v) }
func (r record) text(s string) record    { return append(r, s...) }
func (r record) bytes(b []byte) record   { return append(r, b...) }
func (r record) uuid(u [16]byte) record  { return append(r, u[:]...) }
func (r record) zeros(n int) record      { return append(r, make([]byte, n)...) }
func (r record) time(t timestamp) record { return r.u64(uint64(t.sec)).u32(t.nsec) }

func (r record) u64(vs ...uint64) record {
	for _, v := range vs {
		r = binary.LittleEndian.AppendUint64(r, v)
	}
	return r
}

func (r record) key(k key) record { return r.u64(k.object).u8(k.kind).u64(k.offset) }

type timestamp struct {
	sec  int64
	nsec uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum protects nodes, superblocks and data.
func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// hash is crc32c without the inversions at both ends, from a seed.
func hash(seed uint32, s string) uint64 {
	return uint64(^crc32.Update(^seed, castagnoli, []byte(s)))
}

// nameHash is the offset of a name's DIR_ITEM or XATTR_ITEM.
func nameHash(name string) uint64 { return hash(^uint32(1), name) }

// putFunc takes an item that belongs to a tree; data is the caller's again after.
type putFunc func(k key, data []byte) error
