package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	threatRow = regexp.MustCompile(`(?m)^\| *(\d+) *\|([^|]*)\|([^|]*)\|([^|]*)\|$`)
	handedRow = regexp.MustCompile(`(?m)^\| ([a-zA-Z][^|]*) \|([^|]*)\|([^|]*)\|$`)
	namedTest = regexp.MustCompile("`([a-z/-]+): ((?:Test|Fuzz)[A-Za-z0-9_]+)`")
)

// TestThreatsNameTheirTests keeps docs/threat-model.md honest: every attack
// names tests that exist, or says that it is not stopped.
func TestThreatsNameTheirTests(t *testing.T) {
	b, err := os.ReadFile("../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := threatRow.FindAllStringSubmatch(string(b), -1)
	if len(rows) < 20 {
		t.Fatalf("%d attacks in the table", len(rows))
	}
	given := handedRow.FindAllStringSubmatch(handed(t, string(b)), -1)
	if len(given) < 20 {
		t.Fatalf("%d rows of what the host hands the guest", len(given))
	}
	for _, item := range handedItems() {
		if !slices.ContainsFunc(given, func(row []string) bool { return strings.Contains(row[1], item) }) {
			t.Errorf("no row of what the host hands the guest is about the %s", item)
		}
	}
	for _, row := range given {
		rows = append(rows, []string{"", row[1], "", row[2], row[3]})
	}
	for _, row := range rows {
		names := namedTest.FindAllStringSubmatch(row[4], -1)
		if len(names) == 0 && !strings.Contains(row[3], "**not stopped**") {
			t.Errorf("row %s names no test", row[1])
		}
		for _, n := range names {
			if !testExists(t, n[1], n[2]) {
				t.Errorf("row %s names %s: %s, which does not exist", row[1], n[1], n[2])
			}
		}
	}
}

// handedItems are what must have a row: all that a host hands to a guest.
func handedItems() []string {
	return []string{"disk's size", "disk's errors", "never answers", "LUKS2 header", "superblock", "footer", "scratch header", "sectors",
		"control bytes", "console bytes", "standard input", "evidence frames", "network answers", "DNS answers", "clock", "CPUID", "RDRAND",
		"disks beyond ours", "network devices beyond ours", "other devices", "memory", "command line"}
}

// handed is the section with the table of what the host hands the guest.
func handed(t *testing.T, doc string) string {
	t.Helper()
	_, rest, ok := strings.Cut(doc, "**What the host hands the guest.**")
	_, rest, head := strings.Cut(rest, "|---|---|---|\n")
	section, _, end := strings.Cut(rest, "\n**")
	if !ok || !head || !end {
		t.Fatal("no table of what the host hands the guest")
	}
	return section
}

func testExists(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
