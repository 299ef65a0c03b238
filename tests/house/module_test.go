// Package house holds the rules on how the code is cut: who may import whom,
// what a program may link, and how many files of a package may need each
// other. It needs no tool but Go and takes seconds.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/ccrun/ccrun"
	tags   = "remote,containers_image_openpgp,exclude_graphdriver_btrfs"
)

// listed is what `go list` says of one package.
type listed struct {
	ImportPath, Dir, Export string
	Module                  *struct{ Path string }
	GoFiles, Imports, Deps  []string
}

// path is the package's path within the module.
func (l listed) path() string { return within(l.ImportPath) }

func within(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

func ours(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

// packages lists the module's packages and all that they need, once.
var packages = sync.OnceValues(func() ([]listed, error) {
	if err := openAll("../.."); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-export", "-deps", "-tags", tags,
		"-json=ImportPath,Dir,Export,Module,GoFiles,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New("listing the packages: " + err.Error() + "\n" + complaint.String())
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := d.Decode(&l); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
})

// openAll reads the module's directories, so that `go test` sees that a cached
// result is stale when a file was added.
func openAll(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if name := d.Name(); err == nil && d.IsDir() && path != root && (name[0] == '.' || name == "bin") {
			return fs.SkipDir
		}
		return err
	})
}

func list(t *testing.T) []listed {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return all
}
