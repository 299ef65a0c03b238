package ext4

import (
	"os"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func planned(tree *rootfs.Tree) (rootfstest.Layout, error) {
	return Plan(tree, Options{UUID: testUUID, Journal: true})
}

func BenchmarkWrite(b *testing.B) { rootfstest.Plan(planned).BenchWrite(b) }

func BenchmarkPlan(b *testing.B) { rootfstest.Plan(planned).BenchPlan(b) }

// Five gigabytes must not take more memory than five megabytes.
func TestMemoryIsFlat(t *testing.T) {
	g := rootfstest.Generated{Dirs: 1, Files: 4, Size: 64 << 20}
	if os.Getenv("CCRUN_LONG") != "" {
		g.Size = 1280 << 20
	}
	rootfstest.Plan(planned).MemoryIsFlat(t, g)
}
