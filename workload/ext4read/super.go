package ext4read

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	superOffset = 1024
	superBytes  = 1024
	superMagic  = 0xEF53
	rootInode   = 2

	incompatFiletype = 0x2
	incompatExtents  = 0x40
	incompat64Bit    = 0x80
	incompatFlexBG   = 0x200
	incompatCsumSeed = 0x2000
	incompatKnown    = incompatFiletype | incompatExtents | incompat64Bit | incompatFlexBG | incompatCsumSeed
	incompatRecover  = 0x4
	roCompatBigalloc = 0x200

	maxGroups = 1 << 20 // of 32768 blocks: 128 TiB
)

// ErrNotExt4 says that there is no ext4 superblock.
var ErrNotExt4 = errors.New("no ext4 file system")

// Limits bound what a file system may make us do. The zero value is refused.
type Limits struct {
	Entries int   // names
	Bytes   int64 // of all files together, holes included
}

// FS is an ext4 file system. It is not safe for concurrent use.
type FS struct {
	r            io.ReaderAt
	limits       Limits
	blockBytes   int64
	blocks       uint64
	inodes       uint32
	inodesPerGrp uint32
	inodeBytes   int64
	tables       []uint64 // block of each group's inode table
	is64         bool
}

var le = binary.LittleEndian

// Open reads superblock and group descriptors of the file system in the first
// sizeBytes of r.
func Open(r io.ReaderAt, sizeBytes int64, limits Limits) (*FS, error) {
	if limits.Entries <= 0 || limits.Bytes <= 0 {
		return nil, errors.New("reading ext4: no limits given")
	}
	if sizeBytes < superOffset+superBytes {
		return nil, fmt.Errorf("%d bytes: %w", sizeBytes, ErrNotExt4)
	}
	b := make([]byte, superBytes)
	if _, err := r.ReadAt(b, superOffset); err != nil {
		return nil, fmt.Errorf("reading ext4 superblock: %w", err)
	}
	fs := &FS{r: r, limits: limits}
	groups, descBytes, err := fs.super(b, sizeBytes)
	if err != nil {
		return nil, fmt.Errorf("reading ext4 superblock: %w", err)
	}
	if err := fs.descriptors(int64(le.Uint32(b[20:]))+1, groups, descBytes); err != nil {
		return nil, fmt.Errorf("reading ext4 group descriptors: %w", err)
	}
	return fs, nil
}

func (fs *FS) super(b []byte, sizeBytes int64) (groups uint64, descBytes int64, err error) {
	if le.Uint16(b[56:]) != superMagic {
		return 0, 0, ErrNotExt4
	}
	incompat, shift := le.Uint32(b[96:]), le.Uint32(b[24:])
	fs.is64 = incompat&incompat64Bit != 0
	fs.inodes, fs.inodesPerGrp, fs.inodeBytes = le.Uint32(b[0:]), le.Uint32(b[40:]), int64(le.Uint16(b[88:]))
	fs.blocks = uint64(le.Uint32(b[4:]))
	descBytes = 32
	if fs.is64 {
		fs.blocks |= uint64(le.Uint32(b[0x150:])) << 32
		descBytes = int64(le.Uint16(b[0xFE:]))
	}
	perGroup, first := uint64(le.Uint32(b[32:])), uint64(le.Uint32(b[20:]))
	switch {
	case incompat&incompatRecover != 0:
		return 0, 0, errors.New("journal is not empty: run e2fsck on the disk first")
	case incompat&^incompatKnown != 0 || incompat&incompatExtents == 0:
		return 0, 0, fmt.Errorf("incompatible features %#x, expected those of mke2fs -t ext4", incompat)
	case le.Uint32(b[100:])&roCompatBigalloc != 0:
		return 0, 0, errors.New("bigalloc is not supported")
	case shift > 2:
		return 0, 0, fmt.Errorf("block size 2^%d, expected 1024 to 4096", shift+10)
	case fs.inodeBytes < 128 || fs.inodeBytes > 1024 || fs.inodeBytes&(fs.inodeBytes-1) != 0:
		return 0, 0, fmt.Errorf("inodes of %d bytes, expected 128 to 1024", fs.inodeBytes)
	case descBytes != 32 && descBytes != 64:
		return 0, 0, fmt.Errorf("group descriptors of %d bytes, expected 32 or 64", descBytes)
	case perGroup == 0 || fs.inodesPerGrp == 0 || first > 1 || fs.blocks <= first:
		return 0, 0, errors.New("empty groups")
	}
	fs.blockBytes = 1024 << shift
	if fs.blocks > uint64(sizeBytes/fs.blockBytes) {
		return 0, 0, fmt.Errorf("%d blocks of %d bytes, more than the disk has", fs.blocks, fs.blockBytes)
	}
	groups = (fs.blocks - first + perGroup - 1) / perGroup
	if groups > maxGroups || groups*uint64(fs.inodesPerGrp) != uint64(fs.inodes) {
		return 0, 0, fmt.Errorf("%d groups of %d inodes do not make %d", groups, fs.inodesPerGrp, fs.inodes)
	}
	return groups, descBytes, nil
}

func (fs *FS) descriptors(block int64, groups uint64, descBytes int64) error {
	b := make([]byte, descBytes)
	for i := range int64(groups) {
		off := block*fs.blockBytes + i*descBytes
		if off+descBytes > int64(fs.blocks)*fs.blockBytes {
			return errors.New("beyond the disk")
		}
		if _, err := fs.r.ReadAt(b, off); err != nil {
			return err
		}
		t := uint64(le.Uint32(b[8:]))
		if descBytes == 64 {
			t |= uint64(le.Uint32(b[40:])) << 32
		}
		fs.tables = append(fs.tables, t)
	}
	return nil
}

// readBlock reads one block into b, which has its size.
func (fs *FS) readBlock(n uint64, b []byte) error {
	if n == 0 || n >= fs.blocks {
		return fmt.Errorf("block %d of %d", n, fs.blocks)
	}
	_, err := fs.r.ReadAt(b, int64(n)*fs.blockBytes)
	return err
}
