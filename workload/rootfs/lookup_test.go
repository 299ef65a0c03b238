package rootfs

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestFollow(t *testing.T) {
	tree := mustMerge(t, layer(t, f("x/y/etc/passwd", "1"), s("etc", "x/y/etc"), s("x/y/etc/up", "../../z"), f("x/z", "2"),
		s("abs", "/x/z"), s("loop", "loop"), s("gone", "nowhere"), s("dir", "x/y/")))
	for p, want := range map[string]string{
		"/etc/passwd": "/x/y/etc/passwd", "/etc/up": "/x/z", "/abs": "/x/z", "/dir/etc/passwd": "/x/y/etc/passwd", "/etc/..": "/x/y", "/": "/",
	} {
		if got := tree.Follow(p); got == nil || got != tree.Lookup(want) {
			t.Errorf("%s: not %s", p, want)
		}
	}
	for _, p := range []string{"/loop", "/gone", "/nothing", "/x/z/below"} {
		if tree.Follow(p) != nil {
			t.Errorf("%s: there", p)
		}
	}
}

func TestMakeDir(t *testing.T) {
	tree := mustMerge(t, layer(t, d("has").mode(0o700).owner(5, 6), f("file", ""), s("var/run", "/run"), d("run"), s("gone", "nowhere")))
	for _, p := range []string{"/data", "deep/er", "/has", "/file", "/var/run/app", "/", "/../up"} {
		if err := tree.MakeDir(p, 0o755, 10001, 7); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	for p, want := range map[string]string{
		"/data": "directory 755 10001:7 0.0", "/deep": "directory 755 0:0 0.0", "/deep/er": "directory 755 10001:7 0.0",
		"/has": "directory 700 5:6 0.0", "/file": "regular file 644 0:0 0.0", "/run/app": "directory 755 10001:7 0.0", "/up": "directory 755 10001:7 0.0",
	} {
		if n := tree.Lookup(p); n == nil || describe(n) != want {
			t.Errorf("%s is not %s", p, want)
		}
	}
	for _, p := range []string{"/file/below", "/gone/x"} {
		if err := tree.MakeDir(p, 0o755, 0, 0); err == nil {
			t.Errorf("%s: made", p)
		}
	}
}

func TestReadFile(t *testing.T) {
	layers := []*memLayer{
		layer(t, f("a", strings.Repeat("x", 4096)), f("etc/passwd", "old"), f("b", "1")),
		layer(t, f("c", "2"), f("etc/passwd", "new"), s("etc/group", "passwd"), d("etc/dir")),
	}
	tree := mustMerge(t, layers...)
	if err := tree.AddFile("/made", 0o600, 0, 0, []byte("made")); err != nil {
		t.Fatal(err)
	}
	open := func(i int) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layers[i].data)), nil }
	for p, want := range map[string]string{"/etc/passwd": "new", "/etc/group": "new", "/b": "1", "/made": "made", "/none": ""} {
		if got, err := tree.ReadFile(t.Context(), p, 1000, open); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	for _, p := range []string{"/a", "/etc/dir"} {
		if _, err := tree.ReadFile(t.Context(), p, 1000, open); err == nil {
			t.Errorf("%s: read", p)
		}
	}
}

// What overlayfs keeps for itself would hide files in a guest that mounts one
// over EROFS, as it does in Podman's storage.
func TestOverlayMarks(t *testing.T) {
	tree := mustMerge(t, layer(t, f("meta", "1").xattr("trusted.overlay.metacopy", "").xattr("trusted.other", "v"),
		ent{Header: tar.Header{Name: "wh", Typeflag: tar.TypeChar}}))
	if got := tree.Lookup("/meta").Xattrs(); len(got) != 1 || got[0].Name != "trusted.other" {
		t.Errorf("attributes %v", got)
	}
	if all := strings.Join(tree.Warnings(), "\n"); tree.Lookup("/wh") != nil || !strings.Contains(all, "trusted.overlay.metacopy") || !strings.Contains(all, `"wh": leaving out the character device 0:0`) {
		t.Errorf("left without a word: %s", all)
	}
}

// TestSignedOwner: what Podman takes for 4294967294 is no error.
func TestSignedOwner(t *testing.T) {
	for in, want := range map[int64]uint32{-2: 4294967294, 7: 7, 4294967294: 4294967294, -1 << 31: 1 << 31} {
		if got, err := id32("uid", in); err != nil || got != want {
			t.Errorf("%d: %d, %v", in, got, err)
		}
	}
	for _, in := range []int64{-1, 1<<32 - 1, 1 << 32, -1<<31 - 1} {
		if got, err := id32("uid", in); err == nil {
			t.Errorf("%d: %d", in, got)
		}
	}
}

// A scan does not know which layer it reads, and must not say 0.
func TestScanErrorNamesNoLayer(t *testing.T) {
	l := layer(t, ent{Header: tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 4096}})
	if _, err := Scan(t.Context(), bytes.NewReader(l.data), Limits{}); err == nil || strings.Contains(err.Error(), "layer") {
		t.Errorf("got %v", err)
	}
}
