package btrfs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// generated is a layer made on the fly, so that nothing big is held or stored:
// dirs directories of files files of size bytes each.
type generated struct {
	dirs, files int
	size        int64
}

func (g generated) Open(context.Context) (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(g.write(w)) }()
	return r, nil
}

var pattern = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

func (g generated) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for d := range g.dirs {
		for f := range g.files {
			h := &tar.Header{Name: fmt.Sprintf("%d/%d", d, f), Typeflag: tar.TypeReg, Mode: 0o644, Size: g.size, Format: tar.FormatPAX}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			for left := g.size; left > 0; {
				n, err := tw.Write(pattern[:min(left, int64(len(pattern)))])
				if err != nil {
					return err
				}
				left -= int64(n)
			}
		}
	}
	return tw.Close()
}

// BenchmarkWrite streams a layer held in memory, as a build does after
// decompression: 256 MiB in files of 16 KiB, 1 MiB, 256 MiB.
func BenchmarkWrite(b *testing.B) {
	for _, g := range []generated{{64, 256, 16 << 10}, {16, 16, 1 << 20}, {1, 1, 256 << 20}} {
		b.Run(fmt.Sprintf("%dKiB", g.size>>10), func(b *testing.B) {
			var buf bytes.Buffer
			if err := g.write(&buf); err != nil {
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
	if err := (generated{100, 1000, 1}).write(&buf); err != nil {
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
	for name, g := range map[string]generated{
		"data": {1, 5, 300 << 20}, "inline": {40, 5000, inlineLimit}, "sectors": {20, 5000, inlineLimit + 1},
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
