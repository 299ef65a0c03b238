package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests and structs of linux/btrfs.h and btrfs_tree.h.
const (
	btrfsTreeSearch = 0xd0009411 // BTRFS_IOC_TREE_SEARCH
	btrfsScrub      = 0xc400941b // BTRFS_IOC_SCRUB
	btrfsDevTree    = 4          // BTRFS_DEV_TREE_OBJECTID
	btrfsDevExtent  = 204        // BTRFS_DEV_EXTENT_KEY
	// btrfsReserved is BTRFS_DEVICE_RANGE_RESERVED: what no extent is in, but the
	// first superblock.
	btrfsReserved = 1 << 20
	extentBytes   = 48 // struct btrfs_dev_extent
	extentLength  = 24 // its length, in it
	maxExtents    = 1 << 16
)

// searchArgs is struct btrfs_ioctl_search_args.
type searchArgs struct {
	tree, minObject, maxObject, minOffset, maxOffset, minTransaction, maxTransaction uint64
	minType, maxType, items, _                                                       uint32
	_                                                                                [4]uint64
	buf                                                                              [4096 - 104]byte
}

// btrfsUsed is what the file system mounted at dir may have written of its one
// device, of that many bytes: what it has given out, and superblocks.
func btrfsUsed(dir string, size int64) ([]extent, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	used := []extent{{0, btrfsReserved}}
	for _, at := range []int64{64 << 20, 256 << 30} { // copies of the superblock
		if at+btrfsSuper <= size {
			used = append(used, extent{at, btrfsSuper})
		}
	}
	for next := uint64(0); ; {
		a := searchArgs{tree: btrfsDevTree, minObject: 1, maxObject: 1, minOffset: next, maxOffset: 1<<64 - 1, maxTransaction: 1<<64 - 1,
			minType: btrfsDevExtent, maxType: btrfsDevExtent, items: 1 << 16}
		if errno := ioctl(f, btrfsTreeSearch, unsafe.Pointer(&a)); errno != 0 {
			return nil, errno
		}
		found, err := devExtents(a.buf[:], a.items, size)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return used, nil
		}
		if used = append(used, found...); len(used) > maxExtents {
			return nil, errors.New("the file system is in more than 65536 parts")
		}
		next = uint64(found[len(found)-1].at) + 1
	}
}

// devExtents reads the items of an answer.
func devExtents(b []byte, items uint32, size int64) (all []extent, err error) {
	const header = 32 // struct btrfs_ioctl_search_header
	le := binary.LittleEndian
	for range items {
		if len(b) < header+extentBytes || le.Uint32(b[24:]) != btrfsDevExtent || le.Uint32(b[28:]) != extentBytes {
			return nil, errors.New("an item that is no extent of a device")
		}
		at, n := le.Uint64(b[16:]), le.Uint64(b[header+extentLength:])
		if at > uint64(size) || n == 0 || n > uint64(size)-at || at%copySector != 0 || n%copySector != 0 {
			return nil, fmt.Errorf("an extent of %d bytes at %d, of a device of %d", n, at, size)
		}
		all = append(all, extent{int64(at), int64(n)})
		b = b[header+extentBytes:]
	}
	return all, nil
}

// scrubArgs is struct btrfs_ioctl_scrub_args.
type scrubArgs struct {
	device, start, end, flags uint64
	progress                  [15]uint64
	_                         [(1024 - 32 - 15*8) / 8]uint64
}

// scrubBTRFS reads all that the file system mounted at dir has, and checks it.
func scrubBTRFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	a := scrubArgs{device: 1, end: 1<<64 - 1, flags: 1} // BTRFS_SCRUB_READONLY
	if errno := ioctl(f, btrfsScrub, unsafe.Pointer(&a)); errno != 0 {
		return fmt.Errorf("checking the file system: %w", errno)
	}
	p := a.progress
	if bad := p[4] + p[5] + p[6] + p[9] + p[10] + p[11] + p[14]; bad != 0 { // see struct btrfs_scrub_progress
		return fmt.Errorf("%d parts of the file system cannot be read, or are not what they were", bad)
	}
	if p[0]+p[1] == 0 {
		return fmt.Errorf("checking the file system: nothing was read: %w", unix.EIO)
	}
	return nil
}
