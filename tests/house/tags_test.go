package house

import (
	"os"
	"strings"
	"testing"
)

// TestTagsAgree: make, shells, VS Code and these tests build with the same
// tags, and who builds without is told where to look.
func TestTagsAgree(t *testing.T) {
	for path, want := range map[string]string{
		"Makefile":              "TAGS    := " + tags + "\n",
		".envrc":                "GOFLAGS=-tags=" + tags + "\n",
		"AGENTS.md":             "`. ./.envrc`",
		"docs/dependencies.md":  "GOFLAGS=-tags=" + tags + " CGO_ENABLED=0",
		askForTags + "/tags.go": "//go:build " + strings.ReplaceAll(tags, ",", " && ") + "\n",
	} {
		if text := read(t, path); !strings.Contains(text, want) {
			t.Errorf("%s does not say %q", path, want)
		}
	}
	if n := strings.Count(read(t, ".vscode/settings.json"), tags+`"`); n != 4 {
		t.Errorf(".vscode/settings.json names the tags %d times, expected 4: gopls, Go tools, build, test", n)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
