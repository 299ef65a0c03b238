package scratch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestSpool: what is on the disk is not what was written, and any seek gives
// the right bytes.
func TestSpool(t *testing.T) {
	s, err := NewSpool(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	plain := []byte(strings.Repeat(imagetest.Canary, 40000))
	w := s.Writer()
	for rest := plain; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(70000))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, len(plain))
	if _, err := s.f.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(imagetest.Canary[:16])) {
		t.Error("spool holds plaintext")
	}
	if got, err := io.ReadAll(s.Reader()); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("read back %d bytes: %v", len(got), err)
	}
	r := s.Reader()
	for range 200 {
		off := rand.Int64N(int64(len(plain)))
		if _, err := r.Seek(off, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, rand.IntN(100))
		n, err := r.Read(b)
		if (err != nil && err != io.EOF) || !bytes.Equal(b[:n], plain[off:off+int64(n)]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if st, err := os.ReadDir("/proc/self/fd"); err != nil || len(st) == 0 {
		t.Skip("no /proc")
	}
}

func TestSpaceError(t *testing.T) {
	err := SpaceError(filepath.Join(t.TempDir(), "a", "b"), &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	var h interface{ Hint() string }
	if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &h) {
		t.Errorf("%v", err)
	}
	if other := errors.New("x"); SpaceError("/", other) != other || SpaceError("/", nil) != nil {
		t.Error("changed another error")
	}
}

// TestSweepScratch: only old directories that nobody has locked go.
func TestSweepScratch(t *testing.T) {
	dir := t.TempDir()
	live, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	dead := filepath.Join(dir, Pattern+"dead")
	imagetest.WriteFile(t, filepath.Join(dead, "storage1", "blob"), []byte("ciphertext"))
	other := filepath.Join(dir, "something-else")
	imagetest.WriteFile(t, filepath.Join(other, "x"), nil)
	Sweep(dir)
	if !imagetest.Exists(dead) {
		t.Error("a young directory was swept: its build may be about to lock it")
	}
	imagetest.Age(t, dir, 2*Grace)
	Sweep(dir)
	if imagetest.Exists(dead) || !imagetest.Exists(live.Path) || !imagetest.Exists(other) {
		t.Errorf("dead %v, live %v, other %v", imagetest.Exists(dead), imagetest.Exists(live.Path), imagetest.Exists(other))
	}
}

// TestNamedOutFile is an output on a file system without O_TMPFILE.
func TestNamedOutFile(t *testing.T) {
	dir := t.TempDir()
	f, err := os.CreateTemp(dir, ".ccrun-")
	if err != nil {
		t.Fatal(err)
	}
	o := &OutFile{f, f.Name()}
	_, err = o.Fill(t.Context(), 0, 7, func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "content")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "final")
	if err := errors.Join(o.Publish(path, 0o644), o.Close()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if b, rerr := os.ReadFile(path); err != nil || rerr != nil || string(b) != "content" || len(entries) != 1 {
		t.Errorf("%q, %d entries: %v %v", b, len(entries), err, rerr)
	}
}
