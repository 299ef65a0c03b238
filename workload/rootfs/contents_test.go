package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestContentsOrder(t *testing.T) {
	tree := mustMerge(t,
		layer(t, f("z", "1"), f("gone", "x"), f("a", "2"), f("empty", "")),
		layer(t, f("m", "3"), f(".wh.gone", ""), h("b", "z")))
	for _, name := range []string{"g2", "g1"} {
		if err := tree.AddFile(name, 0, 0, 0, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	files := tree.Files()
	err := tree.Contents(context.Background(), func(n *Node, r io.Reader) error {
		if n != files[len(got)] {
			t.Error("order differs from Files")
		}
		b, err := io.ReadAll(r)
		got = append(got, string(b))
		return err
	})
	if err != nil || strings.Join(got, ",") != "1,2,,3,g2,g1" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestContentsVisitorNeedNotRead(t *testing.T) {
	tree := mustMerge(t, layer(t, f("a", strings.Repeat("x", 5000)), f("b", "2")))
	n := 0
	err := tree.Contents(context.Background(), func(*Node, io.Reader) error { n++; return nil })
	if err != nil || n != 2 {
		t.Errorf("got %d visits, %v", n, err)
	}
	stop := errors.New("stop")
	err = tree.Contents(context.Background(), func(*Node, io.Reader) error { return stop })
	if !errors.Is(err, stop) || !strings.Contains(err.Error(), `layer 1: "a"`) {
		t.Errorf("got %v", err)
	}
}

func TestContentsDetectsChange(t *testing.T) {
	before := []ent{f("a", "1"), d("d"), f("b", "22"), s("l", "x")}
	for name, after := range map[string][]ent{
		"shorter file":     {f("a", ""), d("d"), f("b", "22"), s("l", "x")},
		"entry missing":    {f("a", "1"), d("d"), f("b", "22")},
		"nothing":          {},
		"entry more":       {f("a", "1"), d("d"), f("b", "22"), s("l", "x"), f("e", "")},
		"other name":       {f("a", "1"), d("D"), f("b", "22"), s("l", "x")},
		"other target":     {f("a", "1"), d("d"), f("b", "22"), s("l", "y")},
		"other mode":       {f("a", "1").mode(0o777), d("d"), f("b", "22"), s("l", "x")},
		"other order":      {f("b", "22"), d("d"), f("a", "1"), s("l", "x")},
		"type of an inode": {f("a", "1"), f("d", ""), f("b", "22"), s("l", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			l := layer(t, before...)
			tree := mustMerge(t, l)
			l.data = layer(t, after...).data
			err := tree.Contents(context.Background(), func(_ *Node, r io.Reader) error { return nil })
			if !errors.Is(err, ErrSourceChanged) || !strings.HasPrefix(err.Error(), "layer 1: ") {
				t.Errorf("got %v, want ErrSourceChanged for layer 1", err)
			}
		})
	}
}

// lateErr fails only when read to the end, as a digest check does.
type lateErr struct{ memLayer }

var errDigest = errors.New("digest mismatch")

func (l *lateErr) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(bytes.NewReader(l.data), bytes.NewReader(make([]byte, 1<<16)), errReader{})), nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errDigest }

func TestLayerIsReadToTheEnd(t *testing.T) {
	l := &lateErr{*layer(t, f("a", "1"))}
	if _, err := scanAndMerge(context.Background(), Limits{}, l); !errors.Is(err, errDigest) {
		t.Errorf("first pass: got %v", err)
	}
	idx, err := Scan(context.Background(), bytes.NewReader(l.data), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Merge([]Layer{l}, []*Index{idx}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	err = tree.Contents(context.Background(), func(*Node, io.Reader) error { return nil })
	if !errors.Is(err, errDigest) {
		t.Errorf("second pass: got %v", err)
	}
}

func TestTruncatedAndGarbage(t *testing.T) {
	good := layer(t, f("a", strings.Repeat("x", 3000)), f("b", strings.Repeat("y", 3000))).data
	for _, cut := range []int{100, 512, 2000, 5000} {
		_, err := merge(t, &memLayer{data: good[:cut]})
		var ee *EntryError
		if cut != 512 && (!errors.As(err, &ee) || ee.Layer != 1) {
			t.Errorf("cut at %d: got %v", cut, err)
		}
	}
	if _, err := merge(t, &memLayer{data: bytes.Repeat([]byte("garbage!"), 200)}); err == nil {
		t.Error("garbage accepted")
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	tree := mustMerge(t, layer(t, f("a", "1"), f("b", "2")))
	cancel()
	if _, err := scanAndMerge(ctx, Limits{}, layer(t, f("a", "1"))); !errors.Is(err, context.Canceled) {
		t.Errorf("Merge: got %v", err)
	}
	if err := tree.Contents(ctx, func(*Node, io.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Contents: got %v", err)
	}
}

// bomb is a header that promises a lot and a stream of zeros that keeps it.
type bomb struct{ hdr tar.Header }

func (b bomb) Open(context.Context) (io.ReadCloser, error) {
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&b.hdr); err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(&buf, endless{})), nil
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLimits(t *testing.T) {
	big := bomb{tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 10 << 40, Format: tar.FormatPAX}}
	three := layer(t, f("a", "12345"), f("b/c/d", "12345"), f("e", "12345"))
	for name, tc := range map[string]struct {
		layer  Layer
		limits Limits
		want   string
	}{
		"10 TiB file":  {big, Limits{}, `layer 1: "big": limit exceeded: bytes of file content`},
		"endless tail": {bomb{tar.Header{Name: "a", Typeflag: tar.TypeDir}}, Limits{LayerBytes: 1 << 20}, "bytes of one layer"},
		"entries":      {three, Limits{Entries: 2}, "entries"},
		"implied":      {layer(t, f("a/b/c/d", "")), Limits{Entries: 2}, "implied directories"},
		"bytes":        {three, Limits{TotalBytes: 12}, `"e": limit exceeded`},
		"path":         {three, Limits{PathBytes: 4}, `"b/c/d": limit exceeded: path bytes: at most 4, got 5`},
		"depth":        {three, Limits{Depth: 2}, `"/b/c/d": limit exceeded: directory depth`},
		"xattr":        {layer(t, f("a", "").xattr("user.x", "12345")), Limits{XattrBytes: 10}, "extended attributes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := scanAndMerge(context.Background(), tc.limits, tc.layer)
			if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrLimit with %q", err, tc.want)
			}
		})
	}
	// All layers together count.
	for name, limits := range map[string]Limits{"entries": {Entries: 5}, "bytes": {TotalBytes: 29}, "names": {MetaBytes: 70}} {
		if _, err := scanAndMerge(context.Background(), limits, three); err != nil {
			t.Errorf("%s: one layer: %v", name, err)
		}
		if _, err := scanAndMerge(context.Background(), limits, three, three); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: two layers: %v", name, err)
		}
	}
	// What was not read to its end does not.
	shared := Limits{Entries: 5}.Shared()
	for range 3 {
		if _, err := Scan(context.Background(), bytes.NewReader(three.data[:1300]), shared); err == nil || errors.Is(err, ErrLimit) {
			t.Errorf("half a layer: %v", err)
		}
	}
	if _, err := Scan(context.Background(), bytes.NewReader(three.data), shared); err != nil {
		t.Error(err)
	}
}
