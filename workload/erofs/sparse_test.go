package erofs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	goerofs "github.com/erofs/go-erofs"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// Sparse files keep their holes, with blocks of one chunk and of many.
func TestSparseFiles(t *testing.T) {
	t.Parallel()
	times := int64(1) // half a gigabyte to read
	if os.Getenv("CCRUN_LONG") != "" {
		times = 4
	}
	dir, layer := rootfstest.Sparse(t, map[string]rootfstest.Pieces{
		"pieces": {Size: 10<<20 + 5, Step: 40000}, "hole": {Size: times << 28, Step: 1 << 40}, "chunks": {Size: times*(150<<20) + 777, Step: times * (25 << 20)}, "dense": {Size: 100000, Step: 4000},
	})
	img := image(t, rootfstest.Tree(t, layer))
	if len(img) > 20<<20 {
		t.Errorf("holes take space: %d bytes", len(img))
	}
	run(t, "fsck.erofs", save(t, img))
	// Not by extraction: fsck.erofs 1.5 leaves holes out instead of seeking.
	fsys, err := goerofs.Open(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pieces", "hole", "chunks", "dense"} {
		got, err := fsys.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if sum(t, got) != sum(t, want) {
			t.Errorf("%s: content differs", name)
		}
	}
}

func sum(t *testing.T, r io.ReadCloser) string {
	t.Helper()
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil))
}

// A file too large for a map of single blocks gets larger chunks; together they
// cover each range once and never reach past the end.
func TestChunks(t *testing.T) {
	for _, size := range []uint64{1, 4096, maxChunks * 4096, maxChunks*4096 + 1, 300 << 30} {
		in := inode{node: &rootfs.Node{}, size: size}
		in.chunkBits = chunkBitsFor(size)
		if n := in.chunkCount(); n == 0 || n > maxChunks || n<<in.chunkBits < blocksFor(size) {
			t.Errorf("%d bytes: %d chunks of %d blocks", size, n, 1<<in.chunkBits)
		}
	}
}

func BenchmarkWrite(b *testing.B) { rootfstest.Plan(planned).BenchWrite(b) }

func BenchmarkPlan(b *testing.B) { rootfstest.Plan(planned).BenchPlan(b) }
