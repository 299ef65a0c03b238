package btrfs

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func TestMain(m *testing.M) {
	rootfstest.InMemory()
	os.Exit(m.Run())
}

// long has tests do all that they can: as `make test` does.
var long = os.Getenv("CCRUN_LONG") != ""

var testOptions = Options{
	UUID:  [16]byte{0xcc, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	Label: "ccrun", Time: time.Unix(1700000000, 5),
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return rootfstest.Run(t, "btrfs-progs", name, args...)
}

// image writes a tree to a file with holes for zeros.
func image(t testing.TB, tree *rootfs.Tree) string {
	t.Helper()
	return imageWith(t, tree, defaultLimits())
}

func imageWith(t testing.TB, tree *rootfs.Tree, limits limits) string {
	t.Helper()
	o := testOptions
	o.UUID = uuidFor(t)
	l, err := plan(tree, o, limits)
	if err != nil {
		t.Fatal(err)
	}
	return rootfstest.Image(t, l)
}

// uuidFor keeps the kernel from taking two tests' images for one, or those of
// two runs side by side.
func uuidFor(t testing.TB) [16]byte {
	sum := sha256.Sum256([]byte(t.TempDir() + fmt.Sprint(os.Getpid())))
	return [16]byte(sum[:16])
}

// check fails the test unless btrfs check finds the image perfect.
func check(t testing.TB, path string) {
	t.Helper()
	out := run(t, "btrfs", "check", "--check-data-csum", path)
	if !strings.Contains(out, "no error found") || strings.Contains(out, "WARNING") {
		t.Fatalf("btrfs check:\n%s", out)
	}
}
