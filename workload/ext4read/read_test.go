package ext4read

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var testLimits = Limits{Entries: 100_000, Bytes: 1 << 30}

// tool finds an outside program; without it the test is skipped, but not in CI.
func tool(t testing.TB, name string) string {
	t.Helper()
	for _, p := range []string{"/usr/sbin/" + name, "/sbin/" + name, "/usr/bin/" + name} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// mkfs makes an image of dir as `buildah mkcw` does.
func mkfs(t testing.TB, dir, size string, args ...string) []byte {
	t.Helper()
	img := filepath.Join(t.TempDir(), "img")
	args = append(append([]string{"-q", "-t", "ext4", "-d", dir}, args...), img, size)
	if out, err := exec.Command(tool(t, "mke2fs"), args...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, dir, name, content string, mode os.FileMode) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o600), os.Chmod(p, mode)); err != nil {
		t.Fatal(err)
	}
}

func testTree(t testing.TB) string {
	dir := t.TempDir()
	write(t, dir, "etc/passwd", "root\n", 0o644)
	write(t, dir, "bin/su", "elf", 0o755|os.ModeSetuid)
	write(t, dir, "big", strings.Repeat("0123456789abcdef", 200_000), 0o600)
	write(t, dir, "empty", "", 0o600)
	for i := range 700 {
		write(t, dir, "many/"+strings.Repeat("x", 100)+string(rune('a'+i%26))+string(rune('a'+i/26)), "n", 0o644)
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("end"), 5<<20)
	err = errors.Join(err, f.Close(),
		os.Link(filepath.Join(dir, "etc/passwd"), filepath.Join(dir, "etc/hard")),
		os.Symlink("su", filepath.Join(dir, "bin/short")),
		os.Symlink(strings.Repeat("long/", 200), filepath.Join(dir, "bin/long")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640),
		unix.Setxattr(filepath.Join(dir, "big"), "user.small", []byte("v"), 0),
		unix.Setxattr(filepath.Join(dir, "big"), "user.large", bytes.Repeat([]byte("V"), 900), 0))
	if errors.Is(err, unix.ENOTSUP) {
		t.Log("no user attributes here")
	} else if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t testing.TB, img []byte) (map[string]*tar.Header, map[string][]byte) {
	t.Helper()
	fs, err := Open(bytes.NewReader(img), int64(len(img)), testLimits)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := fs.WriteTar(t.Context(), &b, nil); err != nil {
		t.Fatal(err)
	}
	heads, bodies := map[string]*tar.Header{}, map[string][]byte{}
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return heads, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		heads[name] = h
		if bodies[name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadsWhatMke2fsWrites compares every file with the directory it is from.
func TestReadsWhatMke2fsWrites(t *testing.T) {
	dir := testTree(t)
	for name, args := range map[string][]string{
		"default": {}, "blocks of 1024": {"-b", "1024"}, "old": {"-O", "^64bit,^metadata_csum,^flex_bg", "-I", "128"},
	} {
		t.Run(name, func(t *testing.T) {
			heads, bodies := read(t, mkfs(t, dir, "64M", args...))
			n := 0
			err := filepath.Walk(dir, func(p string, want os.FileInfo, err error) error {
				rel, _ := filepath.Rel(dir, p)
				if n++; err != nil || rel == "." {
					return err
				}
				compare(t, p, rel, want, heads, bodies)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			delete(heads, "lost+found")
			if len(heads) != n {
				t.Errorf("%d entries, expected %d", len(heads), n)
			}
			if h := heads["etc/passwd"]; h.Typeflag != tar.TypeLink || h.Linkname != "etc/hard" {
				t.Errorf("hard link is %+v", h)
			}
		})
	}
}

func compare(t *testing.T, p, rel string, want os.FileInfo, heads map[string]*tar.Header, bodies map[string][]byte) {
	t.Helper()
	h := heads[rel]
	switch {
	case h == nil:
		t.Errorf("%s is missing", rel)
		return
	case h.Typeflag == tar.TypeLink:
		return
	case want.Mode().IsRegular():
		content, err := os.ReadFile(p)
		if err != nil || !bytes.Equal(content, bodies[rel]) {
			t.Errorf("%s has other content (%v)", rel, err)
		}
	case want.Mode()&os.ModeSymlink != 0:
		if target, err := os.Readlink(p); err != nil || target != h.Linkname {
			t.Errorf("%s leads to %q, %v", rel, h.Linkname, err)
		}
	}
	if h.FileInfo().Mode() != want.Mode() || h.ModTime.Unix() != want.ModTime().Unix() {
		t.Errorf("%s is %v of %v, expected %v of %v", rel, h.FileInfo().Mode(), h.ModTime, want.Mode(), want.ModTime())
	}
	for _, name := range []string{"user.small", "user.large"} {
		b := make([]byte, 2000)
		n, err := unix.Lgetxattr(p, name, b)
		got, ok := h.PAXRecords["SCHILY.xattr."+name]
		if (err == nil) != ok || ok && got != string(b[:n]) {
			t.Errorf("%s: attribute %s is %.20q, expected %.20q", rel, name, got, b[:max(n, 0)])
		}
	}
}

func TestReadFile(t *testing.T) {
	img := mkfs(t, testTree(t), "64M")
	fs, err := Open(bytes.NewReader(img), int64(len(img)), testLimits)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := fs.ReadFile("big", 10<<20); err != nil || len(b) != 3_200_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := fs.ReadFile("big", 100); err == nil {
		t.Error("limit not kept")
	}
	if _, err := fs.ReadFile("none", 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := fs.ReadFile("etc", 100); err == nil {
		t.Error("directory read as a file")
	}
}

func TestLimits(t *testing.T) {
	img := mkfs(t, testTree(t), "64M")
	for name, l := range map[string]Limits{"none": {}, "entries": {Entries: 10, Bytes: 1 << 30}, "bytes": {Entries: 1 << 20, Bytes: 1 << 20}} {
		fs, err := Open(bytes.NewReader(img), int64(len(img)), l)
		if err == nil {
			_, err = fs.WriteTar(t.Context(), io.Discard, nil)
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestMutations breaks what a reader might trust.
func TestMutations(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "f", strings.Repeat("x", 5000), 0o644)
	good := mkfs(t, dir, "4M", "-b", "1024")
	put := func(off int, v uint32) func([]byte) { return func(b []byte) { le.PutUint32(b[superOffset+off:], v) } }
	for name, mutate := range map[string]func([]byte){
		"magic": put(56, 0), "block size": put(24, 9), "blocks": put(4, 1<<30), "blocks per group": put(32, 0),
		"inodes per group": put(40, 0), "more inodes": put(40, 7), "inode size": put(88, 100), "unknown feature": put(96, 0xffffffff),
		"journal in use": func(b []byte) { b[superOffset+96] |= incompatRecover }, "bigalloc": put(100, roCompatBigalloc),
		"descriptors": put(0xFE, 3), "inode table": func(b []byte) { le.PutUint32(b[2048+8:], 1<<30) },
	} {
		b := bytes.Clone(good)
		mutate(b)
		fs, err := Open(bytes.NewReader(b), int64(len(b)), testLimits)
		if err == nil {
			_, err = fs.WriteTar(t.Context(), io.Discard, nil)
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzWriteTar(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, "d/f", "content", 0o644)
	if err := os.Symlink("f", filepath.Join(dir, "d/l")); err != nil {
		f.Fatal(err)
	}
	img := mkfs(f, dir, "256k", "-b", "1024", "-O", "^has_journal", "-N", "16")
	f.Add(uint32(1100), []byte{1, 2, 3, 4}, uint32(5000), []byte{0xff})
	f.Fuzz(func(t *testing.T, at uint32, x []byte, at2 uint32, y []byte) {
		b := bytes.Clone(img)
		copy(b[int(at)%len(b):], x)
		copy(b[int(at2)%len(b):], y)
		fs, err := Open(bytes.NewReader(b), int64(len(b)), Limits{Entries: 1000, Bytes: 10 << 20})
		if err != nil {
			return
		}
		_, _ = fs.WriteTar(t.Context(), io.Discard, nil)
		_, _ = fs.ReadFile("d", 1<<20)
	})
}
