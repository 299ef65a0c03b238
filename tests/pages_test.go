package tests

import (
	"os"
	"strings"
	"testing"
)

// TestPagesNameTheirTests keeps the pages on what is proved and what ran where
// honest: the tests that they name exist, and nothing is called shown without one.
func TestPagesNameTheirTests(t *testing.T) {
	for _, page := range []string{"assurance", "status"} {
		b, err := os.ReadFile("../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		names := namedTest.FindAllStringSubmatch(string(b), -1)
		if len(names) < 30 {
			t.Errorf("docs/%s.md names %d tests", page, len(names))
		}
		for _, n := range names {
			if !testExists(t, n[1], n[2]) {
				t.Errorf("docs/%s.md names %s: %s, which does not exist", page, n[1], n[2])
			}
		}
		_, shown, _ := strings.Cut(string(b), "## What is shown")
		shown, _, _ = strings.Cut(shown, "\n## ")
		_, rows, _ := strings.Cut(shown, "|---|---|---|\n")
		if page == "assurance" && strings.Count(rows, "\n| ") < 10 {
			t.Errorf("docs/%s.md shows %q", page, shown)
		}
		for row := range strings.Lines(rows) {
			if strings.HasPrefix(row, "| ") && !namedTest.MatchString(row) {
				t.Errorf("docs/%s.md: no test shows %q", page, row)
			}
		}
	}
}
