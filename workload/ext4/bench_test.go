package ext4

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
			l, err := Plan(rootfstest.Tree(b, rootfstest.Layer(buf.Bytes())), Options{UUID: testUUID, Journal: true})
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
		if _, err := Plan(rootfstest.Tree(b, layer), Options{UUID: testUUID, Journal: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// peak is a writer that notes the largest heap it saw.
type peak struct {
	n    int64
	heap uint64
}

func (p *peak) Write(b []byte) (int, error) {
	if p.n += int64(len(b)); p.n>>28 != (p.n-int64(len(b)))>>28 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.heap = max(p.heap, m.HeapInuse)
	}
	return len(b), nil
}

// Five gigabytes must not take more memory than five megabytes.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("streams 5 GB")
	}
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before) // the other tests' trees
	l, err := Plan(rootfstest.Tree(t, rootfstest.Generated{Dirs: 1, Files: 5, Size: 1 << 30}), Options{UUID: testUUID, Journal: true})
	if err != nil {
		t.Fatal(err)
	}
	var p peak
	if err := l.WriteTo(context.Background(), &p); err != nil {
		t.Fatal(err)
	}
	if p.n != l.SizeBytes() || p.n < 5<<30 {
		t.Errorf("wrote %d bytes, planned %d", p.n, l.SizeBytes())
	}
	if p.heap > before.HeapInuse+32<<20 {
		t.Errorf("heap grew from %d to %d MiB", before.HeapInuse>>20, p.heap>>20)
	}
}
