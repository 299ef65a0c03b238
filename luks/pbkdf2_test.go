package luks

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"go/ast"
	"go/parser"
	"go/token"
	"hash"
	"path/filepath"
	"strings"
	"testing"
)

// TestPBKDF2 compares with Go's own.
func TestPBKDF2(t *testing.T) {
	for _, h := range []func() hash.Hash{sha256.New, sha512.New} {
		for _, n := range []int{1, 20, 32, 33, 64, 65, 96, 200} {
			for _, iterations := range []int{1, 2, 1000} {
				for _, password := range []string{"", "p", strings.Repeat("long", 50)} {
					want, err := pbkdf2.Key(h, password, []byte("salt"), iterations, n)
					if err != nil {
						t.Fatal(err)
					}
					if got := pbkdf2Key(h, []byte(password), []byte("salt"), iterations, n); !bytes.Equal(got, want) {
						t.Errorf("%d bytes after %d iterations: %x, expected %x", n, iterations, got, want)
					}
				}
			}
		}
	}
}

// secrets are what this package calls its secrets.
var secrets = map[string]bool{"passphrase": true, "password": true, "volumeKey": true, "key": true, "vk": true}

// TestNoSecretBecomesAString: nobody can wipe a string.
func TestNoSecretBecomesAString(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if fun, ok := call.Fun.(*ast.Ident); !ok || fun.Name != "string" {
				return true
			}
			seen++
			ast.Inspect(call.Args[0], func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok && (secrets[id.Name] || id.Name == "Reveal") {
					t.Errorf("%s makes a string of %s", name, id.Name)
				}
				return true
			})
			return true
		})
	}
	if seen == 0 {
		t.Error("no conversion at all: the test shows nothing")
	}
}
