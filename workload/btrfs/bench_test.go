package btrfs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// BenchmarkWrite streams a layer held in memory, as a build does after
// decompression: 256 MiB in files of 16 KiB, 1 MiB, 256 MiB.
func BenchmarkWrite(b *testing.B) {
	for _, g := range []rootfstest.Generated{{Dirs: 64, Files: 256, Size: 16 << 10}, {Dirs: 16, Files: 16, Size: 1 << 20}, {Dirs: 1, Files: 1, Size: 256 << 20}} {
		b.Run(fmt.Sprintf("%dKiB", g.Size>>10), func(b *testing.B) {
			var buf bytes.Buffer
			if err := g.Write(&buf); err != nil {
				b.Fatal(err)
			}
			l, err := Plan(rootfstest.Tree(b, rootfstest.Layer(buf.Bytes())), testOptions)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(l.SizeBytes())
			for b.Loop() {
				if err := l.WriteTo(context.Background(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPlan merges and plans 100 000 files.
func BenchmarkPlan(b *testing.B) {
	var buf bytes.Buffer
	if err := (rootfstest.Generated{Dirs: 100, Files: 1000, Size: 1}).Write(&buf); err != nil {
		b.Fatal(err)
	}
	layer := rootfstest.Layer(buf.Bytes())
	for b.Loop() {
		if _, err := Plan(rootfstest.Tree(b, layer), testOptions); err != nil {
			b.Fatal(err)
		}
	}
}

// peak is a writer that notes the largest live heap it saw.
type peak struct {
	n    int64
	heap uint64
}

func (p *peak) Write(b []byte) (int, error) {
	if p.n += int64(len(b)); p.n>>26 != (p.n-int64(len(b)))>>26 {
		p.heap = max(p.heap, live())
	}
	return len(b), nil
}

func live() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemoryIsFlat: neither much data nor much that is inline is kept.
func TestMemoryIsFlat(t *testing.T) {
	for name, g := range map[string]rootfstest.Generated{
		"data": {Dirs: 1, Files: 5, Size: 300 << 20}, "inline": {Dirs: 40, Files: 5000, Size: inlineLimit}, "sectors": {Dirs: 20, Files: 5000, Size: inlineLimit + 1},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Plan(rootfstest.Tree(t, g), testOptions)
			if err != nil {
				t.Fatal(err)
			}
			before := live() // with the tree
			var p peak
			if err := l.WriteTo(context.Background(), &p); err != nil {
				t.Fatal(err)
			}
			if p.n != l.SizeBytes() || p.n < 400<<20 {
				t.Errorf("wrote %d bytes, planned %d", p.n, l.SizeBytes())
			}
			if p.heap > before+16<<20 {
				t.Errorf("heap grew from %d to %d MiB", before>>20, p.heap>>20)
			}
			t.Logf("heap %d, then at most %d MiB", before>>20, p.heap>>20)
		})
	}
}
