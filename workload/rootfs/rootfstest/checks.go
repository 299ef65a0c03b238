package rootfstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// Tool is the path of a program, also where root's PATH is not set. Without it,
// which Debian's package has, the test is skipped, but fails in CI.
func Tool(t testing.TB, debian, name string) string {
	t.Helper()
	for _, p := range []string{name, "/sbin/" + name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: install %s", name, debian)
	}
	t.Skipf("%s is missing: install %s", name, debian)
	return ""
}

// Run runs a program of Debian's package, which must succeed, and returns what
// it says.
func Run(t testing.TB, debian, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(Tool(t, debian, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Plan makes a layout of a tree.
type Plan func(*rootfs.Tree) (Layout, error)

func (plan Plan) must(t testing.TB, layer rootfs.Layer) Layout {
	t.Helper()
	l, err := plan(Tree(t, layer))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// SourceChanged fails the test unless a file that is shorter when it is read
// for the second time is noticed.
func (plan Plan) SourceChanged(t *testing.T) {
	l := plan.must(t, &Flaky{First: Tar(t, []File{Regular("a", []byte("12345"))}), Later: Tar(t, []File{Regular("a", []byte("1234"))})})
	if err := l.WriteTo(context.Background(), io.Discard); !errors.Is(err, rootfs.ErrSourceChanged) {
		t.Errorf("got %v, want ErrSourceChanged", err)
	}
}

// WriteErrors fails the test unless a disk that is full, every step bytes, and
// a cancelled context end the writing.
func (plan Plan) WriteErrors(t *testing.T, files []File, step int) {
	l := plan.must(t, Tar(t, files))
	for left := 0; left < int(l.SizeBytes()); left += step {
		if err := l.WriteTo(context.Background(), &FullDisk{Left: left}); !errors.Is(err, ErrFull) {
			t.Errorf("full after %d: got %v", left, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.WriteTo(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

// MemoryIsFlat fails the test if writing what is generated takes more than 16
// MiB of heap beside the tree.
func (plan Plan) MemoryIsFlat(t *testing.T, g Generated) {
	l := plan.must(t, g)
	before := liveHeap()
	var p peak
	if err := l.WriteTo(context.Background(), &p); err != nil {
		t.Fatal(err)
	}
	if content := int64(g.Dirs) * int64(g.Files) * g.Size; p.n != l.SizeBytes() || p.n < content || content < 64<<20 {
		t.Errorf("wrote %d bytes, planned %d, for %d of content", p.n, l.SizeBytes(), content)
	}
	if p.heap > before+16<<20 {
		t.Errorf("heap grew from %d to %d MiB", before>>20, p.heap>>20)
	}
	t.Logf("heap %d, then at most %d MiB", before>>20, p.heap>>20)
}

// peak is a writer that notes the largest live heap it saw.
type peak struct {
	n    int64
	heap uint64
}

func (p *peak) Write(b []byte) (int, error) {
	if p.n += int64(len(b)); p.n>>24 != (p.n-int64(len(b)))>>24 {
		p.heap = max(p.heap, liveHeap())
	}
	return len(b), nil
}

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchWrite streams a layer held in memory, as a build does after
// decompression: 256 MiB in files of 16 KiB, 1 MiB, 256 MiB.
func (plan Plan) BenchWrite(b *testing.B) {
	for _, g := range []Generated{{Dirs: 64, Files: 256, Size: 16 << 10}, {Dirs: 16, Files: 16, Size: 1 << 20}, {Dirs: 1, Files: 1, Size: 256 << 20}} {
		b.Run(fmt.Sprintf("%dKiB", g.Size>>10), func(b *testing.B) {
			var buf bytes.Buffer
			if err := g.Write(&buf); err != nil {
				b.Fatal(err)
			}
			l := plan.must(b, Layer(buf.Bytes()))
			b.SetBytes(l.SizeBytes())
			for b.Loop() {
				if err := l.WriteTo(context.Background(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchPlan merges and plans 100 000 files.
func (plan Plan) BenchPlan(b *testing.B) {
	var buf bytes.Buffer
	if err := (Generated{Dirs: 100, Files: 1000, Size: 1}).Write(&buf); err != nil {
		b.Fatal(err)
	}
	layer := Layer(buf.Bytes())
	for b.Loop() {
		plan.must(b, layer)
	}
}
