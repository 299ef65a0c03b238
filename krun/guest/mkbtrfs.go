package guest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// emptyBTRFS is an empty file system of emptyBTRFSBytes, with SHA-256 over nodes
// and data: whoever holds the ciphertext can put old sectors in place of new ones,
// and where the plaintext of both is of his making, a CRC could be made to fit.
// mkfs.btrfs made it (TestEmptyBTRFS with CCRUN_UPDATE=1); the agent has no room
// for what makes one of a tree. In gzip: of each node and superblock, its place,
// its length, 64-bit little endian, and its bytes.
//
//go:embed emptybtrfs.gz
var emptyBTRFS []byte

const (
	// emptyBTRFSBytes is the least that a volume has: krun.MinVolumeBytes.
	emptyBTRFSBytes = 128 << 20
	maxEmptyBTRFS   = 1 << 20 // unpacked
	btrfsNode       = 16 << 10
	btrfsSuper      = 4 << 10
	btrfsSum        = 32 // bytes for a checksum, at the beginning of either
	btrfsSuperAt    = 64 << 10
)

// The UUIDs in emptyBTRFS that name the file system, its device and its tree of
// chunks. They appear as they are wherever they do.
var emptyUUIDs = [...][16]byte{
	{0xcc, 0, 0, 0xcc, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x01},
	{0xcc, 0, 0, 0xcc, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x02},
	{0xcc, 0, 0, 0xcc, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x03},
}

// A btrfsBlock is a node or superblock at its place.
type btrfsBlock struct {
	at    int64
	bytes []byte
}

// emptyBlocks are those of emptyBTRFS.
func emptyBlocks(packed []byte) (all []btrfsBlock, err error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, maxEmptyBTRFS+1))
	if err != nil || len(b) > maxEmptyBTRFS {
		return nil, errors.Join(errors.New("the empty file system is not what it was"), err)
	}
	for len(b) >= 16 {
		at, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if b = b[16:]; n > uint64(len(b)) || n != btrfsNode && n != btrfsSuper || at > emptyBTRFSBytes-n || at%btrfsSuper != 0 {
			return nil, errors.New("the empty file system is not what it was")
		}
		all = append(all, btrfsBlock{int64(at), b[:n]})
		b = b[n:]
	}
	return all, nil
}

// makeBTRFS writes an empty file system to a device of that many bytes, with UUIDs
// drawn from random.
func makeBTRFS(device string, bytes int64, random io.Reader) (err error) {
	blocks, err := emptyBlocks(emptyBTRFS)
	if err != nil {
		return err
	}
	if bytes < emptyBTRFSBytes || bytes%btrfsSuper != 0 {
		return fmt.Errorf("a file system of %d bytes, expected a multiple of %d from %d on", bytes, btrfsSuper, emptyBTRFSBytes)
	}
	sizeBTRFS(blocks, bytes)
	if err := renameBTRFS(blocks, random); err != nil {
		return err
	}
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, b := range blocks {
		if _, err := f.WriteAt(b.bytes, b.at); err != nil {
			return fmt.Errorf("writing an empty file system: %w", err)
		}
	}
	return f.Sync()
}

// sizeBTRFS has the file system know that it has so many bytes, all of them free but
// those of the blocks: in the superblock, and in the device's item, which is there
// and in the tree of chunks.
func sizeBTRFS(blocks []btrfsBlock, size int64) {
	const (
		totalAt  = 0x70 // in a superblock
		uuidFrom = 58   // from the size in a device's item to its UUID
	)
	put := func(b []byte) {
		if binary.LittleEndian.Uint64(b) == emptyBTRFSBytes {
			binary.LittleEndian.PutUint64(b, uint64(size))
		}
	}
	for _, b := range blocks {
		if len(b.bytes) == btrfsSuper {
			put(b.bytes[totalAt:])
		}
		for i := 0; ; {
			at := bytes.Index(b.bytes[i:], emptyUUIDs[1][:])
			if at < 0 {
				break
			}
			if i += at; i >= uuidFrom {
				put(b.bytes[i-uuidFrom:])
			}
			i++
		}
	}
}

// renameBTRFS gives the file system UUIDs of its own: the kernel takes two of the
// same for one.
func renameBTRFS(blocks []btrfsBlock, random io.Reader) error {
	for _, old := range emptyUUIDs {
		var id [16]byte
		if _, err := io.ReadFull(random, id[:]); err != nil {
			return fmt.Errorf("drawing a UUID: %w", err)
		}
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // RFC 9562, version 4
		for i := range blocks {
			blocks[i].bytes = bytes.ReplaceAll(blocks[i].bytes, old[:], id[:])
		}
	}
	for _, b := range blocks {
		sum := sha256.Sum256(b.bytes[btrfsSum:])
		copy(b.bytes, sum[:])
	}
	return nil
}

const (
	// btrfsResize is BTRFS_IOC_RESIZE of linux/btrfs.h, of a mounted file system.
	btrfsResize = 0x50009403
	// leastResized is what Linux resizes to: a smaller file system stays as it is.
	leastResized = 256 << 20
)

// growBTRFS has the mounted file system take all of its device, of that many bytes.
func growBTRFS(root string, bytes int64) error {
	if bytes < leastResized {
		return nil
	}
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return btrfsIoctl(f, btrfsResize, "max")
}
