package btrfs

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// colliding makes n names of the given length with one hash. crc32c is linear:
// with two letters to choose from at each place, the choices that change
// nothing are a vector space, of which this finds a base and adds up parts.
func colliding(t *testing.T, seed uint32, prefix string, n, length int) []string {
	t.Helper()
	plain := prefix + strings.Repeat("a", length-len(prefix))
	change := func(places uint64) string {
		b := []byte(plain)
		for i := range 64 {
			if places>>i&1 != 0 {
				b[length-1-i] = 'c'
			}
		}
		return string(b)
	}
	base := hash(seed, plain)
	type row struct{ diff, places uint64 }
	var pivots, kernel []row
	for i := range min(64, length-len(prefix)) {
		r := row{hash(seed, change(1<<i)) ^ base, 1 << i}
		for _, p := range pivots {
			if r.diff^p.diff < r.diff {
				r = row{r.diff ^ p.diff, r.places ^ p.places}
			}
		}
		if r.diff == 0 {
			kernel = append(kernel, r)
		} else {
			pivots = append(pivots, r)
		}
	}
	var names []string
	for i := range n {
		var places uint64
		for bit, k := range kernel {
			if i>>bit&1 != 0 {
				places ^= k.places
			}
		}
		if names = append(names, change(places)); hash(seed, names[i]) != base {
			t.Fatalf("%q has another hash than %q", names[i], plain)
		}
	}
	return names
}

// TestHashCollisions: names of one hash share an item, as many as it holds.
// More are refused, where the kernel would refuse to make the last of them.
func TestHashCollisions(t *testing.T) {
	const length, entry = 60, dirRecordBytes + 60
	fit := maxItem / entry
	names := colliding(t, ^uint32(1), "", fit+1, length)
	attrs := colliding(t, ^uint32(1), "user.", 5, 50)
	long := colliding(t, ^uint32(1), "long", maxItem/(dirRecordBytes+255), 255)
	files := []rootfstest.File{rootfstest.Dir("d"), rootfstest.Dir("e"), rootfstest.WithXattrs(rootfstest.Regular("attrs", nil),
		attrs[0], "v0", attrs[1], "", attrs[2], "v2", attrs[3], strings.Repeat("v", 9000), attrs[4], "v4")}
	for _, name := range names[:fit] {
		files = append(files, rootfstest.Regular("d/"+name, []byte(name)))
	}
	for _, name := range long {
		files = append(files, rootfstest.Symlink("e/"+name, name))
	}
	tree := rootfstest.Tree(t, rootfstest.Tar(t, files))
	path := image(t, tree)
	check(t, path)
	_, dir := mountSeed(t, path)
	compare(t, tree, dir)

	for want, more := range map[string]rootfstest.File{
		fmt.Sprintf(`"/d": %d names have the hash`, fit+1): rootfstest.Regular("d/"+names[fit], nil),
		`"/f": 2 names have the hash`: rootfstest.WithXattrs(rootfstest.Regular("f", nil),
			attrs[0], strings.Repeat("v", 9000), attrs[1], strings.Repeat("v", 9000)),
	} {
		_, err := Plan(rootfstest.Tree(t, rootfstest.Tar(t, append(files[:len(files):len(files)], more))), testOptions)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// hardLinks are n names of one file in a directory.
func hardLinks(dir, target string, names []string) (files []rootfstest.File) {
	for _, name := range names {
		files = append(files, rootfstest.File{Header: tar.Header{Name: dir + "/" + name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644}})
	}
	return files
}

// TestManyLinks: more names than one INODE_REF holds go on in INODE_EXTREFs,
// some of them with one hash. The kernel finds each, and takes each away.
func TestManyLinks(t *testing.T) {
	var plain, long []string
	for i := range 3000 {
		plain = append(plain, fmt.Sprintf("name-%d", i))
		long = append(long, fmt.Sprintf("%d-%s", i, strings.Repeat("x", 240)))
	}
	files := []rootfstest.File{rootfstest.Dir("d"), rootfstest.Dir("e"), rootfstest.Regular("d/f", []byte("one file")), rootfstest.Regular("g", []byte("g"))}
	files = append(files, hardLinks("d", "d/f", plain)...)
	files = append(files, hardLinks("e", "d/f", long)...)
	// Inodes go root, d, e: the hash of a link in e begins with e's number.
	files = append(files, hardLinks("e", "d/f", colliding(t, firstInode+2, "z", 50, 255))...)
	files = append(files, hardLinks("d", "g", []string{"g1", "g2"})...)
	tree := rootfstest.Tree(t, rootfstest.Tar(t, files))
	path := image(t, tree)
	check(t, path)
	if out := run(t, "btrfs", "inspect-internal", "dump-tree", "-t", "5", path); strings.Count(out, "INODE_EXTREF") < 3000 {
		t.Error("no INODE_EXTREF")
	}
	_, dir := mountSeed(t, path)
	compare(t, tree, dir)
	device := sprout(t, dir)
	for _, sub := range []string{"d", "e"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			t.Error(err)
		}
	}
	unmount(t, dir)
	check(t, device)
}

// TestMostLinks: as many names as the format allows.
func TestMostLinks(t *testing.T) {
	if !long {
		t.Skip("CCRUN_LONG=1 makes 65535 names and looks at each for each")
	}
	var names []string
	for i := range maxLinks - 1 {
		names = append(names, fmt.Sprint(i))
	}
	files := append([]rootfstest.File{rootfstest.Regular("f", []byte("x")), rootfstest.Dir("d")}, hardLinks("d", "f", names)...)
	path := image(t, rootfstest.Tree(t, rootfstest.Tar(t, files)))
	check(t, path)
	_, dir := mountSeed(t, path)
	var st unix.Stat_t
	if err := unix.Stat(dir+"/d/65000", &st); err != nil || st.Nlink != maxLinks {
		t.Errorf("%d links (%v)", st.Nlink, err)
	}
}
