package ext4

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func TestRandomTrees(t *testing.T) {
	variety := rootfstest.Variety{Latest: 1<<34 - 1<<31, SizeBits: 20, XattrBits: 10, Namespaces: []string{"trusted.", "security."}}
	n := uint64(10)
	if testing.Short() {
		n = 3
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			img, l := writeImage(t, rootfstest.Tree(t, rootfstest.Tar(t, variety.Random(r)), rootfstest.Tar(t, variety.Random(r))), Options{Journal: seed%2 == 0, FreeBytes: 1})
			fsck(t, img)
			verify(t, img, l)
		})
	}
}
