package btrfs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// TestSparseFiles: holes take no space, whether a file has thousands of pieces,
// nothing but a hole, or more than 32 bits count.
func TestSparseFiles(t *testing.T) {
	_, layer := rootfstest.Sparse(t, map[string]rootfstest.Pieces{
		"pieces": {Size: 40 << 20, Step: 8192}, "hole": {Size: 100<<20 + 1, Step: 1 << 40},
		"tiny hole": {Size: 1000, Step: 1 << 40}, "end": {Size: 1<<20 + 5, Step: 2 << 20},
	})
	tree := rootfstest.Tree(t, layer)
	for name, limits := range map[string]limits{"": defaultLimits(), "small chunks": small} {
		t.Run(name, func(t *testing.T) {
			dir := sparseImage(t, tree, limits)
			compare(t, tree, dir)
			for _, name := range []string{"hole", "tiny hole"} {
				if st := statOf(t, dir+"/"+name); st.Blocks != 0 {
					t.Errorf("%s has %d blocks", name, st.Blocks)
				}
			}
		})
	}
	_, layer = rootfstest.Sparse(t, map[string]rootfstest.Pieces{"big": {Size: 4<<30 + 8192, Step: 1 << 30}})
	dir := sparseImage(t, rootfstest.Tree(t, layer), defaultLimits())
	if st := statOf(t, dir+"/big"); st.Size != 4<<30+8192 || st.Blocks != 4*sectorSize/512 {
		t.Errorf("big has %d bytes in %d blocks", st.Size, st.Blocks)
	}
}

// sparseImage writes, checks and mounts an image that must be small.
func sparseImage(t *testing.T, tree *rootfs.Tree, limits limits) (dir string) {
	t.Helper()
	path := imageWith(t, tree, limits)
	if info, err := os.Stat(path); err != nil || info.Size() > 64<<20 {
		t.Errorf("holes take space: %d bytes (%v)", info.Size(), err)
	}
	check(t, path)
	_, dir = mountSeed(t, path)
	return dir
}

func statOf(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Stat(path, &st); err != nil {
		t.Error(err)
	}
	return st
}

// TestLongFile: a file of more than one extent, and than one chunk.
func TestLongFile(t *testing.T) {
	if os.Getenv("CCRUN_LONG") != "soak" {
		t.Skip("TestLongFile writes 2.3 GB: CCRUN_LONG=soak")
	}
	tree := rootfstest.Tree(t, rootfstest.Generated{Dirs: 1, Files: 1, Size: 2300<<20 + 1})
	path := image(t, tree)
	check(t, path)
	_, dir := mountSeed(t, path)
	compare(t, tree, dir)
}
