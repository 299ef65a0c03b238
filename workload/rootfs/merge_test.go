package rootfs

import (
	"archive/tar"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	for _, tc := range []struct {
		name   string
		layers [][]ent
		want   string
	}{
		{"nothing", nil, ""},
		{"one layer", [][]ent{{d("etc"), f("etc/a", "1"), s("b", "etc/a"), h("c", "etc/a")}}, "/b->etc/a /c:1 /etc/ /etc/a=/c"},
		{"implied parents", [][]ent{{f("a/b/c", "1")}}, "/a/ /a/b/ /a/b/c:1"},
		{"names are clamped", [][]ent{{f("/abs", "1"), f("../../up", "2"), f("x/../../y", "3"), f("./z", "4")}}, "/abs:1 /up:2 /y:3 /z:4"},
		{"replace file", [][]ent{{f("a", "1")}, {f("a", "2")}}, "/a:2"},
		{"last duplicate wins", [][]ent{{f("a", "1"), f("a", "22"), f("a", "3")}}, "/a:3"},

		{"whiteout file", [][]ent{{f("d/a", "1"), f("d/b", "2")}, {f("d/.wh.a", "")}}, "/d/ /d/b:2"},
		{"whiteout directory", [][]ent{{f("d/a/x", "1"), f("b", "2")}, {f("d/.wh.a", "")}}, "/b:2 /d/"},
		{"whiteout at root", [][]ent{{f("a", "1"), f("b", "2")}, {f(".wh.a", "")}}, "/b:2"},
		{"whiteout of nothing", [][]ent{{f("a", "1")}, {f(".wh.x", "")}}, "/a:1"},
		{"whiteout, then anew", [][]ent{{f("a/old", "1")}, {f(".wh.a", ""), f("a/new", "2")}}, "/a/ /a/new:2"},
		{"whiteout after anew", [][]ent{{f("a/old", "1")}, {f("a/new", "2"), f(".wh.a", "")}}, "/a/ /a/new:2"},
		{"whiteout spares its own layer", [][]ent{{f("a", "1")}, {f("a", "2"), f(".wh.a", "")}}, "/a:2"},
		{"whiteout of .wh. name", [][]ent{{f("x/y", "1")}, {f("x/.wh..wh.y", "")}}, "/x/ /x/y:1"},
		{"whiteout makes no parents", [][]ent{{f("a/x", "1")}, {f(".wh.a", ""), f("a/.wh.x", ""), f("n/.wh.x", ""), f("o/.wh..wh..opq", "")}}, ""},
		{"whiteout below a file", [][]ent{{f("a", "1")}, {f("a/.wh.x", "")}}, "/a:1"},
		{"opaque first", [][]ent{{f("d/a", "1"), f("d/e/f", "2")}, {d("d"), f("d/.wh..wh..opq", ""), f("d/b", "3")}}, "/d/ /d/b:3"},
		{"opaque last", [][]ent{{f("d/a", "1"), f("d/e/f", "2")}, {d("d"), f("d/b", "3"), f("d/e/g", "4"), f("d/.wh..wh..opq", "")}}, "/d/ /d/b:3 /d/e/ /d/e/g:4"},
		{"opaque root", [][]ent{{f("a", "1")}, {f("b", "2"), f(".wh..wh..opq", "")}}, "/b:2"},
		{"opaque spares new links", [][]ent{{f("d/a", "1")}, {h("d/b", "d/a"), f("d/.wh..wh..opq", "")}}, "/d/ /d/b:1"},
		{"opaque hides lower only once", [][]ent{{f("d/a", "1")}, {f("d/.wh..wh..opq", "")}, {f("d/c", "3")}}, "/d/ /d/c:3"},
		{"aufs files", [][]ent{{f(".wh..wh.aufs", ""), d(".wh..wh.plnk"), f(".wh..wh.plnk/1.2", "x"), f("a", "1")}}, "/a:1"},

		{"link to lower layer", [][]ent{{f("a", "1")}, {h("b", "a")}}, "/a:1 /b=/a"},
		{"link outlives whiteout", [][]ent{{f("a", "1")}, {h("b", "a")}, {f(".wh.a", "")}}, "/b:1"},
		{"link outlives replacement", [][]ent{{f("a", "1"), h("b", "a")}, {f("a", "2")}}, "/a:2 /b:1"},
		{"link target absolute and dotted", [][]ent{{f("d/a", "1"), h("b", "/d/a"), h("c", "../../d/a")}}, "/b:1 /c=/b /d/ /d/a=/b"},
		{"link to symlink is not followed", [][]ent{{f("a", "1"), s("l", "a"), h("m", "l")}}, "/a:1 /l->a /m=/l"},
		{"link through a symlinked directory", [][]ent{{f("usr/lib/a", "1"), s("lib", "usr/lib"), h("b", "lib/a")}}, "/b:1 /lib->usr/lib /usr/ /usr/lib/ /usr/lib/a=/b"},

		{"parent is a symlink", [][]ent{{d("usr/lib"), s("lib", "usr/lib")}, {f("lib/a", "1")}}, "/lib->usr/lib /usr/ /usr/lib/ /usr/lib/a:1"},
		{"parent is an absolute symlink", [][]ent{{s("l", "/etc"), f("l/a", "1")}}, "/etc/ /etc/a:1 /l->/etc"},
		{"symlink upwards stays inside", [][]ent{{s("d/l", "../../../../tmp"), f("d/l/a", "1")}}, "/d/ /d/l->../../../../tmp /tmp/ /tmp/a:1"},
		{"chain of symlinks", [][]ent{{s("a", "b"), s("b", "/c/d"), f("a/x", "1")}}, "/a->b /b->/c/d /c/ /c/d/ /c/d/x:1"},
		{"symlink itself is replaced", [][]ent{{f("t", "1"), s("l", "t")}, {f("l", "2")}}, "/l:2 /t:1"},
		{"symlink replaced by directory", [][]ent{{f("t/a", "1"), s("l", "t")}, {d("l"), f("l/b", "2")}}, "/l/ /l/b:2 /t/ /t/a:1"},
		{"whiteout does not follow", [][]ent{{f("t/a", "1"), s("l", "t")}, {f(".wh.l", "")}}, "/t/ /t/a:1"},
		{"whiteout below a symlink", [][]ent{{f("t/a", "1"), s("l", "t")}, {f("l/.wh.a", "")}}, "/l->t /t/"},

		{"directory to file", [][]ent{{f("a/b", "1")}, {f("a", "2")}}, "/a:2"},
		{"file to directory", [][]ent{{f("a", "1")}, {d("a"), f("a/b", "2")}}, "/a/ /a/b:2"},
		{"file to implied directory", [][]ent{{f("a", "1")}, {f("a/b", "2")}}, "/a/ /a/b:2"},
		{"directory again keeps children", [][]ent{{f("a/b", "1"), d("a")}, {d("a/")}}, "/a/ /a/b:1"},
		{"overlayfs's deletion", [][]ent{{f("d/a", "1")}, {{Header: tar.Header{Name: "d/a", Typeflag: tar.TypeChar}}, f("d/b", "2")}}, "/d/ /d/b:2"},
		{"devices", [][]ent{{{Header: tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
			{Header: tar.Header{Name: "b", Typeflag: tar.TypeBlock, Devmajor: 4095, Devminor: 1048575}},
			{Header: tar.Header{Name: "p", Typeflag: tar.TypeFifo}}}},
			"/b(block device 4095:1048575) /c(character device 1:3) /p(FIFO 0:0)"},
		{"global header", [][]ent{{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}}, f("a", "1")}}, "/a:1"},
		{"long names", [][]ent{{f(strings.Repeat("n", 255), "1"), s("l", strings.Repeat("t", 4095))}},
			"/l->" + strings.Repeat("t", 4095) + " /" + strings.Repeat("n", 255) + ":1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var layers []*memLayer
			for _, es := range tc.layers {
				layers = append(layers, layer(t, es...))
			}
			if got := list(t, mustMerge(t, layers...)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, tc := range []struct {
		name   string
		layers [][]ent
		want   string // in the error
	}{
		{"link to nothing", [][]ent{{h("a", "b")}}, `layer 1: "/a": hard link to "/b", which does not exist`},
		{"link to itself", [][]ent{{f("a", "1")}, {h("a", "a")}}, `layer 2: "/a": hard link to "/a", which does not exist`},
		{"link to directory", [][]ent{{d("d"), h("a", "d")}}, "is a directory"},
		{"link to the root", [][]ent{{h("a", "/")}}, "does not exist"},
		{"link out of the tree", [][]ent{{h("a", "../../../etc/shadow")}}, "does not exist"},
		{"link to whited-out file", [][]ent{{f("a", "1")}, {f(".wh.a", ""), h("b", "a")}}, "does not exist"},
		{"symlink loop", [][]ent{{s("a", "b"), s("b", "a"), f("a/x", "")}}, "too many levels of symbolic links"},
		{"parent is a file of the layer", [][]ent{{f("a", "1"), f("a/b", "2")}}, "not a directory"},
		{"root is a file", [][]ent{{f("./.", "1")}}, "root must be a directory"},
		{"whiteout of dot", [][]ent{{f("d/.wh..", "")}}, "not a name"},
		{"whiteout of dot dot", [][]ent{{f("d/.wh...", "")}}, "not a name"},
		{"whiteout of empty", [][]ent{{f("d/.wh.", "")}}, "not a name"},
		{"long component", [][]ent{{f(long, "")}}, "limit exceeded"},
		{"long component by symlink", [][]ent{{s("l", long), f("l/x", "")}}, "limit exceeded"},
		{"long path", [][]ent{{f(strings.Repeat("d/", 2048)+"x", "")}}, "limit exceeded"},
		{"deep path", [][]ent{{f(strings.Repeat("d/", 1100)+"x", "")}}, "directory depth"},
		{"uid", [][]ent{{f("a", "").owner(1<<32-1, 0)}}, "uid must be"},
		{"device", [][]ent{{{Header: tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 4096}}}}, "device 4096:0"},
		{"empty symlink", [][]ent{{s("a", "")}}, "symlink target"},
		{"big attributes", [][]ent{{f("a", "").xattr("user.x", strings.Repeat("v", 65<<10))}}, "extended attributes"},
		{"unknown type", [][]ent{{{Header: tar.Header{Name: "a", Typeflag: tar.TypeCont}}}}, "unknown tar entry type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var layers []*memLayer
			for _, es := range tc.layers {
				layers = append(layers, layer(t, es...))
			}
			_, err := merge(t, layers...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}
