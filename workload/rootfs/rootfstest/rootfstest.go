// Package rootfstest makes layers and trees for the tests of what is made of
// them.
package rootfstest

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// Layer is a layer in memory.
type Layer []byte

// Open implements rootfs.Layer.
func (l Layer) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l)), nil
}

// Flaky changes after the first Open.
type Flaky struct{ First, Later Layer }

// Open implements rootfs.Layer.
func (f *Flaky) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := f.First.Open(ctx)
	f.First = f.Later
	return r, err
}

// Tar makes a layer.
func Tar(t testing.TB, files []File) Layer {
	t.Helper()
	var buf bytes.Buffer
	size := 1024
	for _, f := range files {
		size += 2048 + len(f.Body)
	}
	buf.Grow(size)
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.Header
		h.Size, h.Format = int64(len(f.Body)), tar.FormatPAX
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := tw.Write(f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Tree merges layers as a build does.
func Tree(t testing.TB, layers ...rootfs.Layer) *rootfs.Tree {
	t.Helper()
	limits := rootfs.Limits{}.Shared()
	var indexes []*rootfs.Index
	for _, l := range layers {
		r, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		index, err := rootfs.Scan(t.Context(), r, limits)
		if err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, index)
	}
	tree, err := rootfs.Merge(layers, indexes, limits)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// Pieces is a file with holes: its name at every Step, from half a Step on.
type Pieces struct{ Size, Step int64 }

// Sparse makes files with holes, and GNU tar's layer of them.
func Sparse(t testing.TB, files map[string]Pieces) (dir string, layer Layer) {
	t.Helper()
	gnu, err := exec.LookPath("tar")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("tar is missing")
	} else if err != nil {
		t.Skip("tar is missing")
	}
	dir = t.TempDir()
	for name, f := range files {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Truncate(f.Size); err != nil {
			t.Skip(err)
		}
		for off := f.Step / 2; off < f.Size; off += f.Step {
			if _, err := file.WriteAt([]byte(name), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(gnu, "-C", dir, "--sparse", "--format=posix", "--owner=0", "--group=0", "-cf", "-", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return dir, out
}
