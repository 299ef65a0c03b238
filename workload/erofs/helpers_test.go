package erofs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

var testUUID = [16]byte{0xcc, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

func planned(tree *rootfs.Tree) (rootfstest.Layout, error) {
	return Plan(tree, Options{UUID: testUUID, Label: "ccrun", Time: time.Unix(1700000000, 0)})
}

func image(t testing.TB, tree *rootfs.Tree) []byte {
	t.Helper()
	l, err := planned(tree)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := l.WriteTo(context.Background(), &buf); err != nil {
		t.Fatal(err)
	}
	if int64(buf.Len()) != l.SizeBytes() {
		t.Fatalf("wrote %d bytes, planned %d", buf.Len(), l.SizeBytes())
	}
	return buf.Bytes()
}

func save(t testing.TB, img []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return rootfstest.Run(t, "erofs-utils", name, args...)
}
