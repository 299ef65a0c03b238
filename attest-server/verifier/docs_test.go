package verifier

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestDocumented: every rule that the code can name, and every test that the
// page refers to, is there.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "verification.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	rules, tests := declared(t)
	if len(rules) < 65 {
		t.Fatalf("only %d rules found in the source: %q", len(rules), rules)
	}
	for _, r := range rules {
		if !strings.Contains(page, "`"+r+"`") {
			t.Errorf("rule %s is not documented", r)
		}
	}
	for _, n := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(tests, n[1]) {
			t.Errorf("the page refers to %s, which does not exist", n[1])
		}
	}
}

// declared is the first arguments of the functions that make rules, and the
// tests, of the verifier and of what it is fed with.
func declared(t *testing.T) (rules, tests []string) {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.go", "*/*.go", "../endorsements/*.go"} {
		some, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, some...)
	}
	makers := []string{"add", "Refuse", "Lack", "hexRule", "oneOf", "flag", "vtpmError", "snpMinimum", "measurement"}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				tests = append(tests, n.Name.Name)
			case *ast.CallExpr:
				if strings.HasSuffix(name, "_test.go") || len(n.Args) < 3 || !slices.Contains(makers, calleeName(n.Fun)) {
					return true
				}
				if lit, ok := n.Args[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil {
						rules = append(rules, s)
					}
				}
			}
			return true
		})
	}
	slices.Sort(rules)
	return slices.Compact(rules), tests
}

func calleeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
