package crun

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestAddScratch(t *testing.T) {
	const image, want = 8192, 1 << 30
	content := bytes.Repeat([]byte{7}, image)
	spec := func(t *testing.T, readOnly bool) (*Spec, string) {
		s := &Spec{RootFS: t.TempDir()}
		s.Root = &specs.Root{Path: s.RootFS, Readonly: readOnly}
		return s, filepath.Join(s.RootFS, "disk.img")
	}
	for name, c := range map[string]struct {
		readOnly       bool
		length, wanted int64
		after          int64
	}{
		"added":            {false, image, want, want},
		"there already":    {false, want, want, want},
		"longer":           {false, want + 4096, want, want + 4096},
		"not wanted":       {false, image, 0, image},
		"read-only":        {true, image, want, image},
		"read-only, later": {true, want, want, want},
	} {
		t.Run(name, func(t *testing.T) {
			s, path := spec(t, c.readOnly)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, c.length); err != nil {
				t.Fatal(err)
			}
			if err := s.AddScratch(c.wanted); err != nil {
				t.Fatal(err)
			}
			var st syscall.Stat_t
			if err := syscall.Stat(path, &st); err != nil || st.Size != c.after || st.Blocks*512 > 1<<20 {
				t.Errorf("%d bytes in %d blocks (%v), expected %d, sparse", st.Size, st.Blocks, err, c.after)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got := make([]byte, image)
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the image changed (%v)", err)
			}
		})
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"a link":    func(p string) error { return os.Symlink(outside, p) },
		"a pipe":    func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"nothing":   func(string) error { return nil },
	} {
		s, path := spec(t, false)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if err := s.AddScratch(want); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if info, err := os.Stat(outside); err != nil || info.Size() != image {
		t.Errorf("a file outside of the container was written to: %v, %v", info, err)
	}
}
