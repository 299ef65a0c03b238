package btrfs

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// small limits make many chunks of small trees, and trees of several levels of
// the chunks.
var small = limits{chunk: 256 << 10, extent: 36 << 10, waiting: 3}

// TestRandomTrees: whatever the tree, btrfs check and the kernel agree with it;
// half of them in chunks as they are, half in many small ones.
func TestRandomTrees(t *testing.T) {
	variety := rootfstest.Variety{Latest: 1 << 40, SizeBits: 20, XattrBits: 13, Namespaces: []string{"trusted.", "security."}}
	n := uint64(8)
	if testing.Short() {
		n = 2
	} else if long {
		n = 100
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 3))
			tree := rootfstest.Tree(t, rootfstest.Tar(t, variety.Random(r)), rootfstest.Tar(t, variety.Random(r)))
			limits := defaultLimits()
			if seed%2 == 1 {
				limits = small
			}
			path := imageWith(t, tree, limits)
			check(t, path)
			_, dir := mountSeed(t, path)
			compare(t, tree, dir)
		})
	}
}

// TestManyChunks: the shapes in chunks as small as can be.
func TestManyChunks(t *testing.T) {
	for _, name := range []string{"content", "sizes", "big directory", "xattrs", "empty"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, imageWith(t, rootfstest.Tree(t, rootfstest.Tar(t, shapes[name])), small))
		})
	}
}

// TestMirrors: no chunk reaches over a copy of the superblock, and none over
// another.
func TestMirrors(t *testing.T) {
	for _, mirror := range mirrors {
		for _, step := range []uint64{nodeSize, 7 * sectorSize, 100 << 10, maxExtent} {
			s := space{limits: defaultLimits()}
			s.chunks = []chunk{{systemChunk, firstByte, mirror - 2<<20, mirror - 2<<20}} // ends 1 MiB before
			for i := 0; s.next() < mirror+1<<20; i++ {
				kind := uint64(dataChunk)
				if i%5 > 2 {
					kind = metaChunk
				}
				s.take(kind, min(step, s.room(kind)))
			}
			s.finish(len(s.chunks))
			for i, c := range s.chunks {
				if c.start < mirror+stripeSize && mirror < c.start+c.length {
					t.Errorf("step %d: chunk %+v reaches over %d", step, c, mirror)
				}
				if c.start%stripeSize != 0 || c.length < c.used || c.length%stripeSize != 0 {
					t.Errorf("step %d: %+v", step, c)
				}
				if i > 0 && s.chunks[i-1].start+s.chunks[i-1].length > c.start {
					t.Errorf("step %d: %+v overlaps %+v", step, s.chunks[i-1], c)
				}
			}
		}
	}
}
