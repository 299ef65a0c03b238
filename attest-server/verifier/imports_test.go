package verifier

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestNoNetworkNoDisk: neither this package nor any below it imports what
// reaches the network, the disk or other processes: they judge what they are
// given. Packages for tests, whose names end in test, may.
func TestNoNetworkNoDisk(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, "_test.go") || filepath.Ext(path) != ".go" || strings.HasSuffix(filepath.Dir(path), "test") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			top, _, _ := strings.Cut(name, "/")
			if slices.Contains([]string{"net", "os", "io", "syscall", "plugin", "unsafe"}, top) || strings.HasSuffix(name, "/bounded") || strings.HasSuffix(name, "/endorsements") {
				t.Errorf("%s imports %s", path, name)
			}
		}
		return nil
	})
	if err != nil || files < 25 {
		t.Fatalf("%d files: %v", files, err)
	}
}
