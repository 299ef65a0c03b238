package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestVolumeOptions(t *testing.T) {
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	for _, d := range []string{empty, filepath.Join(full, "content")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(empty, 0o750); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		empty: fmt.Sprintf("mode=750,uid=%d,gid=%d", os.Getuid(), os.Getgid()), full: fmt.Sprintf("mode=755,uid=%d,gid=%d", os.Getuid(), os.Getgid()), filepath.Join(dir, "none"): "",
	} {
		if got, err := volumeOptions(path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := volumeOptions(file); got != "" {
		t.Errorf("a file: %q", got)
	}
}

// TestCopyTree: what an image has in a VOLUME comes out the same, and no link
// leads out of it.
func TestCopyTree(t *testing.T) {
	from, to, secret := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "secret")
	err := errors.Join(
		os.WriteFile(secret, []byte("not the volume's"), 0o600),
		os.MkdirAll(filepath.Join(from, "d/e"), 0o755), os.Chmod(filepath.Join(from, "d"), os.ModeSticky|0o770),
		os.WriteFile(filepath.Join(from, "d/e/f"), []byte("content"), 0o640), os.Chmod(filepath.Join(from, "d/e/f"), os.ModeSetuid|0o751),
		os.Symlink(secret, filepath.Join(from, "out")), os.Symlink("d/e", filepath.Join(from, "in")), unix.Mkfifo(filepath.Join(from, "pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(from)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := copyTree(root, to); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"d": os.ModeDir | os.ModeSticky | 0o770, "d/e": os.ModeDir | 0o755, "d/e/f": os.ModeSetuid | 0o751} {
		if info, err := os.Lstat(filepath.Join(to, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, expected %v", name, info, err, mode)
		}
	}
	if b, err := os.ReadFile(filepath.Join(to, "in/f")); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if target, err := os.Readlink(filepath.Join(to, "out")); err != nil || target != secret {
		t.Errorf("%q, %v", target, err)
	}
	if _, err := os.Lstat(filepath.Join(to, "pipe")); err == nil {
		t.Error("a pipe was copied")
	}
}

// TestIsWithin: a volume keeps every VOLUME at and below it, as images write them.
func TestIsWithin(t *testing.T) {
	for dir, want := range map[string]bool{"/data": true, "/data/": true, "data": true, "/data/x": true, "/x/../data/y": true, "/dat": false, "/data2": false, "/": false, "": false} {
		if got := isWithin(dir, "/data"); got != want {
			t.Errorf("%q: %v", dir, got)
		}
	}
}
