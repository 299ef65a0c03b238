package attestserver

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
)

// TestDocumentedRegistration: docs/protocol.md shows a registration that
// decodes, and whose rules compile.
func TestDocumentedRegistration(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```json\n(\\{\n  \"registration\".*?)```").FindSubmatch(b)
	if m == nil {
		t.Fatal("no example")
	}
	whole := regexp.MustCompile(`"([0-9a-f]{16})\.\.\."`).ReplaceAllString(string(m[1]), `"`+strings.Repeat("$1", 6)+`"`)
	var req kbs.RegisterRequest
	if err := kbs.UnmarshalStrict([]byte(whole), &req); err != nil {
		t.Fatal(err)
	}
	c, err := policy.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckExpressions(req.Registration.ReferenceValues.CEL); err != nil {
		t.Error(err)
	}
}
