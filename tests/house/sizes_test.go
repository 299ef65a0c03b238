package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// What AGENTS.md asks for is less; beyond these nobody reads on.
const (
	maxFunctionLines = 80
	maxFileLines     = 400
)

// TestSizes looks at code; tests may be as long as their tables.
func TestSizes(t *testing.T) {
	for _, l := range list(t) {
		if !ours(l.ImportPath) {
			continue
		}
		for _, name := range l.GoFiles {
			sizes(t, filepath.Join(l.Dir, name), filepath.Join(l.path(), name))
		}
	}
}

func sizes(t *testing.T, file, name string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	line := func(p token.Pos) int { return fset.Position(p).Line }
	if n := line(f.FileEnd); n > maxFileLines {
		t.Errorf("%s has %d lines, at most %d are allowed", name, n, maxFileLines)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.FuncDecl); ok && line(d.End())-line(d.Pos())+1 > maxFunctionLines {
			t.Errorf("%s: %s has %d lines, at most %d are allowed", name, d.Name.Name, line(d.End())-line(d.Pos())+1, maxFunctionLines)
		}
		return true
	})
}
