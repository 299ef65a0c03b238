package bounded

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	for n, want := range map[int]error{0: nil, 9: nil, 10: nil, 11: ErrTooLarge, 1 << 16: ErrTooLarge} {
		b, err := Read(strings.NewReader(strings.Repeat("x", n)), "it", 10)
		if !errors.Is(err, want) || (err == nil && len(b) != n) || (err != nil && b != nil) {
			t.Errorf("%d bytes: got %d, %v, expected %v", n, len(b), err, want)
		}
	}
	if _, err := Read(io.MultiReader(strings.NewReader("x"), errReader{}), "it", 10); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v, expected the reader's error", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, fs.ErrInvalid }

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, n := range map[string]int{"fits": 10, "longer": 11} {
		if err := os.WriteFile(at(name), bytes.Repeat([]byte("x"), n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	readers := map[string]func(string) ([]byte, error){
		"File":      func(n string) ([]byte, error) { return File(at(n), 10) },
		"Regular":   func(n string) ([]byte, error) { return Regular(at(n), 10) },
		"RegularFS": func(n string) ([]byte, error) { return RegularFS(os.DirFS(dir), n, 10) },
	}
	for name, read := range readers {
		if b, err := read("fits"); err != nil || len(b) != 10 {
			t.Errorf("%s: got %d bytes, %v", name, len(b), err)
		}
		if b, err := read("longer"); !errors.Is(err, ErrTooLarge) || b != nil {
			t.Errorf("%s: got %d bytes, %v, expected too large", name, len(b), err)
		}
		if _, err := read("absent"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, expected not to exist", name, err)
		}
		if name == "File" {
			continue
		}
		if _, err := read("pipe"); err == nil || !strings.Contains(err.Error(), "regular file") {
			t.Errorf("%s: a named pipe: got %v", name, err)
		}
	}
}
