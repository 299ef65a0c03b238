package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// memLayer is a tar in memory; it counts how often it was opened.
type memLayer struct {
	data  []byte
	opens int
}

func (m *memLayer) Open(context.Context) (io.ReadCloser, error) {
	m.opens++
	return io.NopCloser(bytes.NewReader(m.data)), nil
}

// ent is a tar entry; a header's zero fields get sensible values.
type ent struct {
	tar.Header
	body string
}

func d(name string) ent {
	return ent{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}

func f(name, body string) ent {
	return ent{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body: body}
}

func s(name, target string) ent {
	return ent{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
}

func h(name, target string) ent {
	return ent{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644}}
}

func (e ent) mode(m int64) ent { e.Mode = m; return e }

func (e ent) owner(uid, gid int) ent { e.Uid, e.Gid = uid, gid; return e }

func (e ent) at(t time.Time) ent { e.ModTime = t; return e }

func (e ent) xattr(name, value string) ent {
	m := map[string]string{paxXattr + name: value}
	for k, v := range e.PAXRecords {
		m[k] = v
	}
	e.PAXRecords = m
	return e
}

func layer(t testing.TB, entries ...ent) *memLayer {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		hdr := e.Header
		hdr.Size = int64(len(e.body))
		hdr.Format = tar.FormatPAX
		if err := tw.WriteHeader(&hdr); err != nil {
			t.Fatalf("%s: %v", hdr.Name, err)
		}
		if _, err := io.WriteString(tw, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return &memLayer{data: buf.Bytes()}
}

func merge(t testing.TB, layers ...*memLayer) (*Tree, error) {
	t.Helper()
	ls := make([]Layer, len(layers))
	for i, l := range layers {
		ls[i] = l
	}
	return scanAndMerge(context.Background(), Limits{}, ls...)
}

// scanAndMerge is what a build does with layers.
func scanAndMerge(ctx context.Context, limits Limits, layers ...Layer) (*Tree, error) {
	limits = limits.Shared()
	var indexes []*Index
	for i, l := range layers {
		r, err := l.Open(ctx)
		if err != nil {
			return nil, atLayer(i, err)
		}
		idx, err := Scan(ctx, r, limits)
		if err != nil {
			return nil, atLayer(i, err)
		}
		indexes = append(indexes, idx)
	}
	return Merge(layers, indexes, limits)
}

func mustMerge(t testing.TB, layers ...*memLayer) *Tree {
	t.Helper()
	tree, err := merge(t, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// contents reads every file through Contents, by node.
func contents(t testing.TB, tree *Tree) map[*Node]string {
	t.Helper()
	out := map[*Node]string{}
	err := tree.Contents(context.Background(), func(n *Node, r io.Reader) error {
		if _, dup := out[n]; dup {
			t.Error("a node was visited twice")
		}
		b, err := io.ReadAll(r)
		out[n] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// list shows a tree in short: kind, path, content or target; hard links as
// "=first name".
func list(t testing.TB, tree *Tree) string {
	t.Helper()
	text := contents(t, tree)
	tree.Nodes()
	first := map[*Node]string{}
	var out []string
	tree.Walk(func(p string, n *Node) bool {
		line := ""
		switch {
		case p == "/":
			return true
		case first[n] != "":
			line = p + "=" + first[n]
		case n.Kind == Directory:
			line = p + "/"
		case n.Kind == Symlink:
			line = p + "->" + n.Target()
		case n.Kind == Regular:
			line = p + ":" + text[n]
		default:
			line = fmt.Sprintf("%s(%s %d:%d)", p, n.Kind, n.Major, n.Minor)
		}
		if first[n] == "" {
			first[n] = p
		}
		out = append(out, line)
		return true
	})
	return strings.Join(out, " ")
}
