package house

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fileKnots is the largest number of files of a package that may need each
// other both ways. Whoever unties files lowers the number; no number grows.
// A package that is not named may have no two such files.
var fileKnots = map[string]int{
	"attest-server":           3,
	"attest-server/admin":     3,
	"attest-server/answer":    2,
	"attest-server/kbs":       4,
	"attest-server/recipient": 4,
	"attest-server/session":   5,
	"cmd/ccrun":               4,
	"krun/firmware":           4,
	"krun/guest":              12,
	"krun/machine":            4,
	"krun/measure":            11,
	"krun/sim":                2,
	"krun/wrapper":            4,
	"luks":                    3,
	"tests/guestinit":         1,
	"tests/rig/vmm":           4,
	"workload":                3,
	"workload/erofs":          2,
	"workload/ext4":           7,
	"workload/imagetest":      3,
	"workload/registry":       2,
	"workload/rootfs":         2,
	"workload/source":         5,
}

// TestFileKnots measures every package's largest file-knot: the largest set
// of files in which each uses, directly or through others, a definition of
// every other. In a knot nothing can be read or moved alone.
//
// With -v it prints the knots; with CCRUN_KNOT=workload/rootfs also which file
// of that package uses what of which other.
func TestFileKnots(t *testing.T) {
	exports := map[string]string{}
	for _, l := range list(t) {
		exports[l.ImportPath] = l.Export
	}
	seen := map[string]bool{}
	for _, l := range list(t) {
		if !ours(l.ImportPath) || len(l.GoFiles) == 0 {
			continue
		}
		seen[l.path()] = true
		c, err := typeCheck(l, exports)
		if err != nil {
			t.Fatalf("%s: %v", l.path(), err)
		}
		refuseHexOfHex(t, c)
		uses := c.fileUses()
		if os.Getenv("CCRUN_KNOT") == l.path() {
			t.Log(uses)
		}
		judgeKnot(t, l, largestKnot(l.GoFiles, uses))
	}
	for path := range fileKnots {
		if !seen[path] {
			t.Errorf("%s is limited but does not exist: take it out of fileKnots", path)
		}
	}
}

func judgeKnot(t *testing.T, l listed, knot []string) {
	t.Helper()
	limit := max(1, fileKnots[l.path()])
	if len(knot) > 1 {
		t.Logf("%s: %d of %d files: %s", l.path(), len(knot), len(l.GoFiles), strings.Join(knot, " "))
	}
	switch {
	case len(knot) > limit:
		t.Errorf("%s: %d files need each other both ways, at most %d may: %s\n"+
			"CCRUN_KNOT=%s go test -v -run FileKnots ./tests/house shows what ties them",
			l.path(), len(knot), limit, strings.Join(knot, " "), l.path())
	case len(knot) < limit:
		t.Errorf("%s: well done: lower the limit in fileKnots from %d to %d", l.path(), limit, len(knot))
	}
}

// usesOf says, by file and other file, which of its definitions are used.
type usesOf map[string]map[string]map[string]bool

func (u usesOf) String() string {
	var b strings.Builder
	for _, from := range slices.Sorted(maps.Keys(u)) {
		for _, to := range slices.Sorted(maps.Keys(u[from])) {
			fmt.Fprintf(&b, "\n%s uses of %s: %s", from, to,
				strings.Join(slices.Sorted(maps.Keys(u[from][to])), " "))
		}
	}
	return b.String()
}

func (u usesOf) add(from, to, name string) {
	if u[from] == nil {
		u[from] = map[string]map[string]bool{}
	}
	if u[from][to] == nil {
		u[from][to] = map[string]bool{}
	}
	u[from][to][name] = true
}

// fileUses is what the files of a package use of each other. A test file counts
// for nothing: it may look at all of its package.
func (c *checked) fileUses() usesOf {
	uses := usesOf{}
	for id, obj := range c.info.Uses {
		if obj.Pkg() != c.pkg || !obj.Pos().IsValid() {
			continue
		}
		from, to := c.fset.Position(id.Pos()).Filename, c.fset.Position(obj.Pos()).Filename
		if from != to {
			uses.add(filepath.Base(from), filepath.Base(to), obj.Name())
		}
	}
	return uses
}

// checked is a package with its types.
type checked struct {
	fset  *token.FileSet
	files []*ast.File
	pkg   *types.Package
	info  *types.Info
}

// typeCheck reads l's files and checks them against its imports' export data.
func typeCheck(l listed, exports map[string]string) (*checked, error) {
	c := &checked{fset: token.NewFileSet(), info: &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}}
	for _, name := range l.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(l.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		c.files = append(c.files, f)
	}
	config := types.Config{Importer: importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}
	var err error
	c.pkg, err = config.Check(l.ImportPath, c.fset, c.files, c.info)
	return c, err
}

// largestKnot is the largest set of files that reach each other.
func largestKnot(files []string, uses usesOf) []string {
	reach := map[string]map[string]bool{}
	for _, f := range files {
		reach[f] = reached(f, uses)
	}
	var largest []string
	for _, f := range files {
		knot := []string{f}
		for _, other := range files {
			if other != f && reach[f][other] && reach[other][f] {
				knot = append(knot, other)
			}
		}
		if len(knot) > len(largest) {
			largest = knot
		}
	}
	slices.Sort(largest)
	return largest
}

func reached(from string, uses usesOf) map[string]bool {
	seen := map[string]bool{}
	for next := []string{from}; len(next) > 0; {
		f := next[0]
		next = next[1:]
		for to := range uses[f] {
			if !seen[to] {
				seen[to] = true
				next = append(next, to)
			}
		}
	}
	return seen
}
