package erofs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
)

var testUUID = [16]byte{0xcc, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

func image(t testing.TB, tree *rootfs.Tree) []byte {
	t.Helper()
	l, err := Plan(tree, Options{UUID: testUUID, Label: "ccrun", Time: time.Unix(1700000000, 0)})
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
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: install erofs-utils", name)
	} else if err != nil {
		t.Skipf("%s is missing: install erofs-utils", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
