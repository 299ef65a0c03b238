package btrfs

import (
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func planned(tree *rootfs.Tree) (rootfstest.Layout, error) { return Plan(tree, testOptions) }

func BenchmarkWrite(b *testing.B) { rootfstest.Plan(planned).BenchWrite(b) }

func BenchmarkPlan(b *testing.B) { rootfstest.Plan(planned).BenchPlan(b) }

// TestMemoryIsFlat: neither much data nor much that is inline is kept.
func TestMemoryIsFlat(t *testing.T) {
	for name, g := range map[string]rootfstest.Generated{
		"data": {Dirs: 1, Files: 3, Size: 60 << 20}, "inline": {Dirs: 10, Files: 5000, Size: inlineLimit}, "sectors": {Dirs: 7, Files: 5000, Size: inlineLimit + 1},
	} {
		if long {
			g.Dirs *= 5
		}
		t.Run(name, func(t *testing.T) { rootfstest.Plan(planned).MemoryIsFlat(t, g) })
	}
}
