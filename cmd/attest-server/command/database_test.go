package command

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/bounded"
)

// TestDatabasePassword: a password is taken whole or not at all.
func TestDatabasePassword(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	cfg := Config{Database: "host=/run/p"}
	if p, err := cfg.postgres(); err != nil || p.Password.Len() != 0 {
		t.Errorf("without one: %d bytes, %v", p.Password.Len(), err)
	}
	for n, want := range map[int]error{12: nil, 4096: nil, 4097: bounded.ErrTooLarge} {
		if err := os.WriteFile(filepath.Join(dir, databasePasswordName), bytes.Repeat([]byte("p"), n), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := cfg.postgres(); !errors.Is(err, want) || err == nil && p.Password.Len() != n {
			t.Errorf("%d bytes: %d, %v, expected %v", n, p.Password.Len(), err, want)
		}
	}
}
