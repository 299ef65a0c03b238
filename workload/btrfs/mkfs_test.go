package btrfs

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// TestLikeMkfs: mkfs.btrfs makes the same items of the same tree, but for
// numbers that are free to choose and for what mkfs.btrfs (6.2) itself does
// otherwise than the kernel: hard links, inline content over 2048 bytes, time
// and size on disk of the root, no nanoseconds, a zero byte after the target of
// a symbolic link, extents of 1 MiB, and no device numbers.
func TestLikeMkfs(t *testing.T) {
	files := append([]rootfstest.File{}, shapes["xattrs"]...)
	for _, name := range []string{"small", "content", "big directory"} {
		files = append(files, shapes[name]...)
	}
	largest := 3<<20 + 1
	if long {
		largest = 130<<20 + 1
	}
	for _, n := range []int{1, 2047, 2048, 4096, 4097, 65536, 1 << 20, largest} {
		files = append(files, rootfstest.Regular(fmt.Sprint("f", n), make([]byte, n)))
	}
	for _, f := range append(rootfstest.Kinds(), rootfstest.Symlink("longest", strings.Repeat("c", 4000))) {
		if f.Header.Linkname != "suid" && f.Header.Devmajor < 256 {
			f.Header.Devmajor, f.Header.Devminor = 0, min(f.Header.Devminor, 255)
			files = append(files, f)
		}
	}
	ours := image(t, rootfstest.Tree(t, rootfstest.Tar(t, files)))
	_, dir := mountSeed(t, ours)
	theirs := filepath.Join(t.TempDir(), "mkfs.img")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(theirs, 1<<30); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.btrfs", "-q", "-m", "single", "-d", "single", "--rootdir", dir, theirs)
	got, want := itemsOf(t, ours), itemsOf(t, theirs)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s:%s", name, firstDifference(got[name], want[name]))
		}
		delete(got, name)
	}
	if len(got) > 0 || len(want) < 5000 {
		t.Errorf("%d names, and %d that mkfs.btrfs has not", len(want), len(got))
	}
	for _, line := range []string{"csum_type", "sectorsize", "nodesize", "stripesize", "root_dir", "num_devices"} {
		a, b := superLine(t, ours, line), superLine(t, theirs, line)
		if a != b || a == "" {
			t.Errorf("ours %q, mkfs.btrfs %q", a, b)
		}
	}
}

func firstDifference(ours, theirs string) string {
	at := 0
	for at < min(len(ours), len(theirs)) && ours[at] == theirs[at] {
		at++
	}
	from := max(0, at-100)
	return fmt.Sprintf("\n     ours ...%.200s\nmkfs.btrfs ...%.200s", ours[from:], theirs[from:])
}

func superLine(t *testing.T, path, name string) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^` + name + `\s.*$`).FindString(run(t, "btrfs", "inspect-internal", "dump-super", path))
}

var (
	itemLine   = regexp.MustCompile(`^\titem \d+ key \((\d+) (\w+) (\w+)\)`)
	inodeLine  = regexp.MustCompile(`size \d+ nbytes \d+|mode \d+ links \d+ uid \d+ gid \d+|mtime \d+`)
	extentLine = regexp.MustCompile(`type \d+ \(\w+\)|inline extent data size \d+|extent data offset 0|extent compression \d+ \(\w+\)`)
	extentSize = regexp.MustCompile(`extent data offset 0 nr (\d+) ram (\d+)`)
	freeInRoot = regexp.MustCompile(`nbytes \d+|mtime \d+`)
	freeInLink = regexp.MustCompile(`nbytes \d+|inline extent data size \d+`)
	entryLine  = regexp.MustCompile(`type \w+|data_len \d+ name_len \d+|(?:name|data):? .*`)
)

// dumped is an inode as btrfs inspect-internal dump-tree shows it.
type dumped struct {
	parent, name string
	items        []string
	index        []string // directory entries by index: their order is free
	extents      int      // bytes of regular extents without a gap
}

// add takes a line of the inode's item of a kind; offset is the item's key's.
func (d *dumped) add(t *testing.T, kind, offset, line string) {
	t.Helper()
	switch kind {
	case "INODE_ITEM":
		d.items = append(d.items, inodeLine.FindAllString(line, -1)...)
	case "INODE_REF":
		if _, name, ok := strings.Cut(line, "name: "); ok {
			d.parent, d.name = offset, name
		}
	case "XATTR_ITEM", "DIR_ITEM":
		d.items = append(d.items, offset) // the hash must be the same
		d.items = append(d.items, entryLine.FindAllString(line, -1)...)
	case "DIR_INDEX":
		d.index = append(d.index, entryLine.FindAllString(line, -1)...)
	case "EXTENT_DATA":
		if m := extentSize.FindStringSubmatch(line); m != nil {
			if m[1] != m[2] || offset != strconv.Itoa(d.extents) {
				t.Errorf("%s after %d bytes: %s", offset, d.extents, line)
			}
			n, _ := strconv.Atoi(m[1])
			d.extents += n
		}
		if d.extents == 0 || offset == "0" {
			d.items = append(d.items, extentLine.FindAllString(line, -1)...)
		}
	}
}

func (d *dumped) String() string {
	slices.Sort(d.index)
	s := fmt.Sprint(strings.Join(d.items, "; "), "; index ", strings.Join(d.index, "; "), "; bytes ", d.extents)
	switch {
	case d.name == "..":
		return freeInRoot.ReplaceAllString(s, "")
	case strings.Contains(s, "mode 12"):
		return freeInLink.ReplaceAllString(s, "")
	}
	return s
}

// itemsOf describes the file tree's items, by path.
func itemsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	out, err := exec.Command(rootfstest.Tool(t, "btrfs-progs", "btrfs"), "inspect-internal", "dump-tree", "-t", "5", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]*dumped{}
	var m []string
	for line := range strings.SplitSeq(string(out), "\n") {
		if found := itemLine.FindStringSubmatch(line); found != nil {
			if m = found; inodes[m[1]] == nil {
				inodes[m[1]] = &dumped{}
			}
		} else if strings.HasPrefix(line, "\t\t") { // else it is a node's header
			inodes[m[1]].add(t, m[2], m[3], line)
		}
	}
	all := map[string]string{}
	for number, in := range inodes {
		name := ""
		for i := number; i != "256"; i = inodes[i].parent {
			name = "/" + inodes[i].name + name
		}
		all[name] = in.String()
	}
	return all
}
