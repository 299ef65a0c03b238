package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestStatusIsGenerated: the page has a result for each feature, in the form that
// the generator gives it. (That the tests exist, tests: TestPagesNameTheirTests
// looks at.)
func TestStatusIsGenerated(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("../..", page))
	if err != nil {
		t.Fatal(err)
	}
	next, err := generate(string(b), run{date: "DATE", commit: "COMMIT"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := structure(string(b)), structure(next); got != want {
		t.Errorf("%s is not what `go run ./tests/status` writes: got\n%s\nexpected\n%s", page, got, want)
	}
	if n := strings.Count(next, "| never |\n"); n < 20 {
		t.Errorf("only %d features", n)
	}
}

// structure is the page without results.
func structure(text string) string {
	head, run, _ := strings.Cut(text, begin)
	run = regexp.MustCompile(`Of \S+, commit \S+:`).ReplaceAllString(run, "Of DATE, commit COMMIT:")
	run = regexp.MustCompile(`(?m)^(\| [^|]+ \|)( (–|never|(, )?(\*\*failed: Test\w+(, Test\w+)*\*\*|\d+ (passed|skipped|not run)))+ \|){6}$`).ReplaceAllString(run, "$1 RESULTS")
	return head + begin + run
}

// TestReadRun: results of a run, where a test ran, and how a feature's cell says it.
func TestReadRun(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"TestA.log":        "=== RUN TestA\n    --- FAIL: TestA/sub (1.00s)\n--- PASS: TestA (2.00s)\nPASS\n",
		"TestB.log":        "--- FAIL: TestB (0.10s)\n",
		"TestDebian13.log": "                --- PASS: TestA (1.00s)\n        --- FAIL: TestA (1.00s)\n--- FAIL: TestDebian13 (5.00s)\n",
		"commit":           "abc\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := readRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	page := "| feature | unit | simulator | rig | real |\n|---|---|---|---|---|\n| a | – | `tests: TestA`, `tests: TestC` | `tests: TestB` | – |\n| u | `x: TestU` | – | – | – |\n| o | `x: TestZ` | `tests: TestOVMFBoots` | – | – |\n" + begin
	got, err := generate(page, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"commit abc:", "\n| a | 1 passed, 1 not run | **failed: TestB** | **failed: TestA** | – | – | never |\n", "\n| o | – | – | – | – | 1 not run | never |\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got[strings.Index(got, "last run"):], "| u |") {
		t.Error("a feature that only unit tests show has results")
	}
	again, err := generate(got, r)
	if err != nil || again != got {
		t.Errorf("generated twice: %v\n%s", err, again)
	}
	if _, err := readRun(t.TempDir()); err == nil {
		t.Error("a run without logs has results")
	}
}
