package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc is the kernel's crc32c: no inversion before or after.
func crc(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

func crc32le(seed, v uint32) uint32 {
	return crc(seed, binary.LittleEndian.AppendUint32(nil, v))
}

// fsSeed starts every checksum but the superblock's.
func (l *Layout) fsSeed() uint32 { return crc(^uint32(0), l.opts.UUID[:]) }

// inodeSeed starts the checksums of what belongs to an inode; generations are
// zero here.
func (l *Layout) inodeSeed(ino uint32) uint32 { return crc32le(crc32le(l.fsSeed(), ino), 0) }
