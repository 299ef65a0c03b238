package ext4

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// A sparse file of many pieces needs an extent tree, one of 4 GiB needs 64-bit
// sizes, and neither needs blocks for its holes.
func TestSparseFiles(t *testing.T) {
	t.Parallel()
	dir, layer := rootfstest.Sparse(t, map[string]rootfstest.Pieces{
		"pieces": {Size: 40 << 20, Step: 8192}, "big": {Size: 4<<30 + 8192, Step: 1 << 30}, "hole": {Size: 100<<20 + 1, Step: 1 << 40}, "long": {Size: 300 << 20, Step: 140 << 20},
	})
	img, l := writeImage(t, rootfstest.Tree(t, layer), Options{Journal: true, FreeBytes: 1 << 20})
	fsck(t, img)
	if l.SizeBytes() > 64<<20 {
		t.Errorf("holes take space: %d bytes", l.SizeBytes())
	}
	stat := debugfs(t, img, "stat pieces")
	if !strings.Contains(stat, "ETB0") {
		t.Errorf("no extent tree: %s", stat)
	}
	for _, name := range []string{"pieces", "hole", "long"} {
		copied := filepath.Join(dir, name+".copy")
		debugfs(t, img, "dump "+name+" "+copied)
		if out, err := exec.CommandContext(context.Background(), "cmp", copied, filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	if stat := debugfs(t, img, "stat big"); !strings.Contains(stat, "Size: 4294975488") {
		t.Errorf("got %s", stat)
	}
}

// Extent trees more than one level deep, put together by hand: no layer small
// enough for a test makes one.
func TestDeepExtentTree(t *testing.T) {
	for _, n := range []int{0, 1, 4, 5, 340, 341, 1360, 1361, 200000} {
		exts := make([]extent, n)
		for i := range exts {
			exts[i] = extent{uint32(2 * i), 1, uint64(i) + 1<<33}
		}
		root := make([]byte, iBlockLen)
		blocks := extentTree(exts, 1000, 7, root)
		if got, want := uint32(len(blocks)/blockSize), treeBlocks(n); got != want {
			t.Errorf("%d extents: %d blocks, planned %d", n, got, want)
		}
		if got := walkExtents(t, root, blocks, 1000); len(got) != n || n > 0 && got[n-1] != exts[n-1] {
			t.Errorf("%d extents: read back %d", n, len(got))
		}
	}
}
