package btrfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// testACL is one as the kernel gives it back.
const testACL = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\xe8\x03\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"

var shapes = map[string][]rootfstest.File{
	"empty": nil,
	"small": {rootfstest.Dir("etc"), rootfstest.Regular("etc/hostname", []byte("box\n")), rootfstest.Symlink("bin", "usr/bin"), rootfstest.Regular("none", nil)},
	"kinds": append(rootfstest.Kinds(), rootfstest.Symlink("short", "a"), rootfstest.Symlink("long", strings.Repeat("b", 1000)),
		rootfstest.Symlink("longest", strings.Repeat("c", 4095))),
	"xattrs": {
		rootfstest.WithXattrs(rootfstest.Regular("cap", []byte("x")), "security.capability", string([]byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})),
		rootfstest.WithXattrs(rootfstest.Regular("many", []byte("x")), "user.a", strings.Repeat("v", 200), "user.b", "", "user.ccc", "x", "trusted.t", "yy", "user.z", strings.Repeat("w", 15000)),
		rootfstest.WithXattrs(rootfstest.Dir("acl"), "system.posix_acl_default", testACL, "system.posix_acl_access", testACL),
		rootfstest.WithXattrs(rootfstest.Symlink("sl", "x"), "trusted.x", strings.Repeat("q", 500)),
	},
	"sizes":         sizesAround(),
	"big directory": rootfstest.Many("d", 5000, 20),
	"long names":    rootfstest.Many("d", 9000, 255),
	"short names":   rootfstest.Many("d", 25000, 5),
	"content":       {rootfstest.Regular("a", bytes.Repeat([]byte("abc"), 5000)), rootfstest.Regular("b", nil), rootfstest.Regular("c", bytes.Repeat([]byte("z"), 300<<20>>3)), rootfstest.Regular("d", []byte("end"))},
	// Over the superblock's copy at 64 MiB.
	"mirror":      {rootfstest.Regular("a", bytes.Repeat([]byte("abcd"), 12<<20)), rootfstest.Regular("b", bytes.Repeat([]byte("ef"), 16<<20)), rootfstest.Regular("d", []byte("end"))},
	"full chunk":  {rootfstest.Regular("f", bytes.Repeat([]byte{1}, stripeSize))},
	"extremes":    extremes(),
	"bytes":       {rootfstest.Regular("n\xff\xfe\x80", nil), rootfstest.Regular("sp ace\n", nil)},
	"directories": rootfstest.Subdirectories(),
}

// sizesAround are files of every size near a limit.
func sizesAround() (out []rootfstest.File) {
	for _, n := range []int{0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 65536, 65537, 1<<20 - 1, 1 << 20, 1<<20 + 1} {
		out = append(out, rootfstest.Regular(fmt.Sprint("f", n), bytes.Repeat([]byte{byte(n), 7}, n)[:n]))
	}
	return out
}

// extremes are values at the ends of what there can be, on the root, too.
func extremes() []rootfstest.File {
	file := func(name string, at time.Time, uid int, mode int64) rootfstest.File {
		f := rootfstest.Regular(name, []byte(name))
		f.Header.ModTime, f.Header.Uid, f.Header.Gid, f.Header.Mode = at, uid, uid, mode
		return f
	}
	link := func(name, target string) rootfstest.File {
		return rootfstest.File{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o600}}
	}
	root := rootfstest.WithXattrs(rootfstest.Dir("./"), "user.root", "yes", "system.posix_acl_access", testACL)
	root.Header.Uid, root.Header.Mode = 1<<31, 0o1753
	return []rootfstest.File{
		root,
		file("past", time.Unix(-1<<33, 999999999), 1<<32-2, 0o7777), file("minus one", time.Unix(-1, 1), 1<<31-1, 0),
		file("far", time.Unix(1<<40, 0), 1<<31, 0o4711), file("y2038", time.Unix(1<<31, 0), 0, 0o2755),
		rootfstest.WithXattrs(rootfstest.Regular("largest attribute", nil), "user.x", strings.Repeat("v", maxXattr-6)),
		{Header: tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600}}, link("fifo too", "fifo"),
		{Header: tar.Header{Name: "device", Typeflag: tar.TypeChar, Devmajor: 4095, Devminor: 1<<20 - 1}}, link("device too", "device"),
		rootfstest.Symlink("symlink", "nowhere"), link("symlink too", "symlink"),
	}
}

// TestShapes: btrfs check finds an image of each shape perfect, and the kernel
// reads what it was made from.
func TestShapes(t *testing.T) {
	dear := []string{"mirror", "short names", "long names", "directories"}
	for name, files := range shapes {
		t.Run(name, func(t *testing.T) {
			if slices.Contains(dear, name) && !long {
				t.Skip("CCRUN_LONG=1 makes tens of thousands of names, and 80 MiB")
			}
			tree := rootfstest.Tree(t, rootfstest.Tar(t, files))
			path := image(t, tree)
			check(t, path)
			t.Run("kernel", func(t *testing.T) { // skipped where that cannot be
				_, dir := mountSeed(t, path)
				compare(t, tree, dir)
			})
		})
	}
}
