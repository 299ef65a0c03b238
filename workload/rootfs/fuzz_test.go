package rootfs

import (
	"context"
	"io"
	"strings"
	"testing"
)

// FuzzMerge: no bytes may crash the merge, escape the tree, or give contents
// that differ from what the headers said.
func FuzzMerge(f *testing.F) {
	f.Add(layer(f, d("a"), ent{}.file("a/b", "x"), s("l", "/a"), ent{}.file("l/c", "y")).data, layer(f, ent{}.file("a/.wh.b", ""), h("m", "l/c")).data)
	f.Add(layer(f, s("x", "x"), d("x/y")).data, layer(f, ent{}.file(".wh..wh..opq", "")).data)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		limits := Limits{Entries: 1000, TotalBytes: 1 << 20, LayerBytes: 1 << 22}
		layers := []Layer{&memLayer{data: a}, &memLayer{data: b}}
		tree, err := scanAndMerge(context.Background(), limits, layers...)
		if err != nil {
			return
		}
		tree.Walk(func(p string, n *Node) bool {
			base := p[strings.LastIndexByte(p, '/')+1:]
			if p != "/" && (base == "" || base == "." || base == ".." || len(base) > 255 || strings.IndexByte(base, 0) >= 0) {
				t.Errorf("bad name %q", p)
			}
			if n.Kind == 0 {
				t.Errorf("%q has no kind", p)
			}
			return true
		})
		files := tree.Files()
		i := 0
		err = tree.Contents(context.Background(), func(n *Node, r io.Reader) error {
			if n != files[i] {
				t.Error("order differs from Files")
			}
			i++
			got, err := io.ReadAll(r)
			if err == nil && int64(len(got)) != n.Size {
				t.Errorf("got %d bytes, header said %d", len(got), n.Size)
			}
			return err
		})
		if err != nil || i != len(files) {
			t.Errorf("second pass over the same bytes: %d of %d files, %v", i, len(files), err)
		}
		again, err := scanAndMerge(context.Background(), limits, layers...)
		if err != nil || list(t, again) != list(t, tree) {
			t.Errorf("merging twice gives two trees (%v)", err)
		}
	})
}

func (ent) file(name, body string) ent { return f(name, body) }
