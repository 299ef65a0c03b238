package command

import (
	"os"
	"strings"
	"testing"
)

// A password that is longer than passwords are is refused, not cut.
func TestLongDatabasePassword(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for length, ok := range map[int]bool{4096: true, 4097: false} {
		if err := os.WriteFile(inDir(dir, databasePasswordName), []byte(strings.Repeat("x", length)), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := Config{Database: "postgres://db.example/attest"}.postgres()
		if (err == nil) != ok || ok && p.Password.Len() != length {
			t.Errorf("%d bytes: a password of %d, %v", length, p.Password.Len(), err)
		}
	}
}
