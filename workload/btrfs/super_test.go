package btrfs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// TestSuper: what btrfs check does not look at, but a kernel does that mounts
// for writing: without it trees are searched or built anew.
func TestSuper(t *testing.T) {
	tree := rootfstest.Tree(t, rootfstest.Tar(t, rootfstest.Many("d", 2000, 255)))
	path := image(t, tree)
	super := run(t, "btrfs", "inspect-internal", "dump-super", "-f", path)
	for _, want := range []string{
		`generation\s+1\n`, `uuid_tree_generation\s+1\n`, `cache_generation\s+0\n`, `compat_ro_flags\s+0x3\n`, `incompat_flags\s+0x361\n`,
		`flags\s+0x100000001\n`, `label\s+ccrun\n`, `backup_tree_root:\s+\d+\s+gen: 1\s`,
	} {
		if !regexp.MustCompile(want).MatchString(super) {
			t.Errorf("want %s in\n%s", want, super)
		}
	}
	if len(regexp.MustCompile(`\[match\]`).FindAllString(super, -1)) != 3 {
		t.Errorf("checksum, magic or device do not match in\n%s", super)
	}
	trees := run(t, "btrfs", "inspect-internal", "dump-tree", path)
	nodes := strings.Count(trees, "owner FS_TREE\n")
	for _, want := range []string{
		fmt.Sprintf(`key \(FS_TREE ROOT_ITEM 0\).*\n.*bytes_used %d\n`, nodes*nodeSize),
		`key \(0x[0-9a-f]+ UUID_KEY_SUBVOL 0x[0-9a-f]+\).*\n\s+subvol_id 5\n`,
	} {
		if !regexp.MustCompile(want).MatchString(trees) {
			t.Errorf("want %s in the trees", want)
		}
	}
	if nodes < 130 {
		t.Errorf("%d nodes of files", nodes)
	}
	id := regexp.MustCompile(`UUID_KEY_SUBVOL`).FindAllString(trees, -1)
	if len(id) != 1 {
		t.Errorf("%d UUIDs", len(id))
	}
}

// TestUUIDs: all follow from one, none is another, and all are valid.
func TestUUIDs(t *testing.T) {
	a := testOptions.ids()
	seen := map[[16]byte]bool{testOptions.UUID: true}
	other := testOptions
	other.UUID[15]++
	b := other.ids()
	for _, id := range [][16]byte{a.device, a.chunkTree, a.subvolume, b.device, b.chunkTree, b.subvolume} {
		if seen[id] || id[6]>>4 != 8 || id[8]>>6 != 2 {
			t.Errorf("%x", id)
		}
		seen[id] = true
	}
	if testOptions.ids() != a {
		t.Error("they change")
	}
}
