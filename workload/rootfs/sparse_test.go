package rootfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// sparseTar archives one sparse file with GNU tar, which Go's writer cannot.
func sparseTar(t testing.TB, size int64, data map[int64]string, format ...string) *memLayer {
	t.Helper()
	gnu, err := exec.LookPath("tar")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("tar is missing")
		}
		t.Skip("tar is missing")
	}
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Skipf("no sparse file of %d bytes here: %v", size, err)
	}
	for off, text := range data {
		if _, err := file.WriteAt([]byte(text), off); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-C", dir, "--sparse", "-cf", "-"}, append(format, "sparse")...)
	out, err := exec.Command(gnu, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return &memLayer{data: out}
}

var sparseFormats = map[string][]string{
	"gnu":     {"--format=gnu"},
	"pax 0.0": {"--format=posix", "--sparse-version=0.0"},
	"pax 0.1": {"--format=posix", "--sparse-version=0.1"},
	"pax 1.0": {"--format=posix", "--sparse-version=1.0"},
}

func TestSparse(t *testing.T) {
	const size = 3<<20 + 100
	want := make([]byte, size)
	copy(want[1<<20:], "hello")
	copy(want[size-3:], "end")
	for name, format := range sparseFormats {
		t.Run(name, func(t *testing.T) {
			tree := mustMerge(t, sparseTar(t, size, map[int64]string{1 << 20: "hello", size - 3: "end"}, format...))
			n := tree.Lookup("/sparse")
			ranges, sparse := n.Data()
			if wantRanges := []Range{{1 << 20, 4096}, {3 << 20, 100}}; !sparse || !reflect.DeepEqual(ranges, wantRanges) {
				t.Errorf("got %v, %v; want %v", ranges, sparse, wantRanges)
			}
			if got := contents(t, tree)[n]; got != string(want) {
				t.Errorf("content differs (%d bytes)", len(got))
			}
		})
	}
}

func TestSparseBombIsRefused(t *testing.T) {
	for name, format := range sparseFormats {
		t.Run(name, func(t *testing.T) {
			_, err := merge(t, sparseTar(t, 10<<40, nil, format...))
			if !errors.Is(err, ErrLimit) {
				t.Errorf("got %v, want ErrLimit", err)
			}
		})
	}
}

func TestDataInHoleIsRefused(t *testing.T) {
	l := sparseTar(t, 1<<20, map[int64]string{0: strings.Repeat("\x00", 4096), 8192: "x"}, "--format=gnu")
	tree := mustMerge(t, l)
	i := bytes.LastIndexByte(l.data, 'x')
	l.data[i], l.data[i-8192+4096] = 0, 'y' // moves the byte out of its block
	err := tree.Contents(context.Background(), func(_ *Node, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, ErrSourceChanged) {
		t.Errorf("got %v, want ErrSourceChanged", err)
	}
}

func TestHoleChecker(t *testing.T) {
	data := []Range{{10, 5}, {20, 5}}
	for off := range 30 {
		b := make([]byte, 30)
		b[off] = 1
		_, err := io.ReadAll(&holeChecker{r: iotestOneByte{bytes.NewReader(b)}, data: data})
		inData := off >= 10 && off < 15 || off >= 20 && off < 25
		if (err == nil) != inData {
			t.Errorf("byte at %d: got %v", off, err)
		}
	}
}

// iotestOneByte reads in odd pieces.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 7)]) }
