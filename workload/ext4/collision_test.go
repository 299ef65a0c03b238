package ext4

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// Two names of one hash that a block's end parts: the index must say that the
// hash goes on in the second block, or the kernel would not find the second.
func TestHashAcrossLeaves(t *testing.T) {
	o, err := Options{UUID: testUUID}.check()
	if err != nil {
		t.Fatal(err)
	}
	x, y, hash := collision(t, o.HashSeed)
	files := []rootfstest.File{rootfstest.Dir("d"), rootfstest.Regular("d/"+x, nil), rootfstest.Regular("d/"+y, nil)}
	// Fifteen entries of 264 bytes and one of 104 leave 20: room for one more.
	for i, n := 0, 0; n < 16; i++ {
		name := fmt.Sprintf("%d-", i)
		name += strings.Repeat("f", map[bool]int{true: 255, false: 96}[n < 15]-len(name))
		if h, _ := hashName(o.HashSeed, name); h < hash {
			files = append(files, rootfstest.Regular("d/"+name, nil))
			n++
		}
	}
	img, l := writeImage(t, rootfstest.Tree(t, rootfstest.Tar(t, files)), Options{})
	fsck(t, img)
	slot := l.slot(l.tree.Lookup("/d"))
	root := l.dirBlocks(slot)[:blockSize]
	if n := binary.LittleEndian.Uint16(root[dxRootOff+2:]); n != 2 {
		t.Fatalf("got %d leaves, want 2", n)
	}
	if got := binary.LittleEndian.Uint32(root[dxRootOff+8:]); got != hash|1 {
		t.Errorf("second leaf starts at hash %#x, want %#x", got, hash|1)
	}
}

// collision finds two eight-byte names of one (not small) hash.
func collision(t *testing.T, seed [16]byte) (x, y string, hash uint32) {
	t.Helper()
	seen := map[uint32]string{}
	for i := range 1 << 20 {
		name := fmt.Sprintf("%08d", i)
		h, _ := hashName(seed, name)
		if other, ok := seen[h]; ok && h > 1<<31 {
			return other, name, h
		}
		seen[h] = name
	}
	t.Fatal("no collision in a million names")
	return
}
