package ext4

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

var testUUID = [16]byte{0xcc, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// tool finds an e2fsprogs program.
func tool(t testing.TB, name string) string { return rootfstest.Tool(t, "e2fsprogs", name) }

// writeImage plans and writes a tree to a (sparse) file.
func writeImage(t testing.TB, tree *rootfs.Tree, o Options) (string, *Layout) {
	t.Helper()
	if o.UUID == [16]byte{} {
		o.UUID = testUUID
	}
	l, err := Plan(tree, o)
	if err != nil {
		t.Fatal(err)
	}
	return rootfstest.Image(t, l), l
}

// fsck fails the test unless e2fsck finds the image perfect.
func fsck(t testing.TB, img string) {
	t.Helper()
	rootfstest.Run(t, "e2fsprogs", "e2fsck", "-fn", img)
}

func debugfs(t testing.TB, img, cmd string) string {
	t.Helper()
	c := exec.Command(tool(t, "debugfs"), "-R", cmd, img)
	out, err := c.Output()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		t.Fatalf("debugfs %s: %v\n%s", cmd, err, ee.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
