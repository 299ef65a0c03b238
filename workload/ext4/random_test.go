package ext4

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// randomFiles makes a tree that e2fsprogs can also name on a command line.
func randomFiles(r *rand.Rand) (out []file) {
	dirs := []string{""}
	var files []string
	pick := func(s []string) string { return s[r.IntN(len(s))] }
	for i := range 50 + r.IntN(400) {
		name := pick(dirs) + fmt.Sprintf("%d", i)
		if r.IntN(4) == 0 {
			name += strings.Repeat("n", r.IntN(240))
		}
		f := file{hdr: tar.Header{Name: name, Mode: int64(r.IntN(0o10000)), Uid: r.IntN(1 << 20), Gid: r.IntN(1 << 20),
			ModTime: time.Unix(r.Int64N(1<<34-1<<31), r.Int64N(1e9))}}
		switch k := r.IntN(20); {
		case k < 4 && len(name) < 2000:
			f.hdr.Typeflag = tar.TypeDir
			dirs = append(dirs, name+"/")
		case k < 7:
			f.hdr.Typeflag, f.hdr.Linkname = tar.TypeSymlink, strings.Repeat("t", 1+r.IntN(1<<r.IntN(12)))
		case k < 8:
			f.hdr.Typeflag, f.hdr.Devmajor, f.hdr.Devminor = tar.TypeChar, r.Int64N(4096), r.Int64N(1<<r.IntN(21))
		case k < 9:
			f.hdr.Typeflag = tar.TypeFifo
		case k < 11 && len(files) > 0:
			f.hdr.Typeflag, f.hdr.Linkname = tar.TypeLink, pick(files)
		default:
			f.hdr.Typeflag = tar.TypeReg
			f.body = make([]byte, r.IntN(1<<r.IntN(20)))
			for i := range f.body {
				f.body[i] = byte(i * len(name))
			}
			files = append(files, name)
		}
		out = append(out, randomXattrs(r, f))
	}
	return out
}

func randomXattrs(r *rand.Rand, f file) file {
	var kv []string
	for i := range r.IntN(4) {
		ns := []string{"trusted.", "security."}[r.IntN(2)]
		kv = append(kv, fmt.Sprintf("%s%d%s", ns, i, strings.Repeat("k", r.IntN(30))), strings.Repeat("v", r.IntN(1<<r.IntN(10))))
	}
	return withXattrs(f, kv...)
}

func TestRandomTrees(t *testing.T) {
	n := uint64(10)
	if testing.Short() {
		n = 3
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			files := randomFiles(r)
			img, l := writeImage(t, treeOf(t, tarOf(t, files), tarOf(t, randomFiles(r))), Options{Journal: seed%2 == 0, FreeBytes: 1})
			fsck(t, img)
			verify(t, img, l)
		})
	}
}

func TestShapesRoundTrip(t *testing.T) {
	for _, name := range []string{"empty", "small", "kinds", "xattrs", "content", "own lost+found", "big directory"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img, l := writeImage(t, treeOf(t, tarOf(t, shapes[name])), Options{})
			verify(t, img, l)
		})
	}
}
