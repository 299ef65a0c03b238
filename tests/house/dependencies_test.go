package house

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// dependency is a module's row in docs/dependencies.md.
type dependency struct {
	version string
	rooms   []string // who imports it; empty: tests only
}

// TestDependencies holds the tables of docs/dependencies.md against go.mod,
// and who imports a module there against what the packages import.
func TestDependencies(t *testing.T) {
	rows, required := documented(t), required(t)
	for module, version := range required {
		if row, ok := rows[module]; !ok {
			t.Errorf("docs/dependencies.md has no row for %s", module)
		} else if row.version != version {
			t.Errorf("docs/dependencies.md: %s %s, go.mod requires %s", module, row.version, version)
		}
	}
	used := importers(t)
	for module, row := range rows {
		if required[module] == "" {
			t.Errorf("docs/dependencies.md: %s is not required directly", module)
		}
		for _, p := range used[module] {
			if !underAny(p, row.rooms) {
				t.Errorf("%s imports %s, which docs/dependencies.md does not say", p, module)
			}
		}
		for _, room := range row.rooms {
			if !anyUnder(used[module], room) {
				t.Errorf("docs/dependencies.md: nothing in %s imports %s", room, module)
			}
		}
	}
}

func anyUnder(paths []string, room string) bool {
	for _, p := range paths {
		if under(p, room) {
			return true
		}
	}
	return false
}

var moduleRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (v[^ ]+) \\|.*\\| ([^|]+) \\|$")

func documented(t *testing.T) map[string]dependency {
	t.Helper()
	text, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]dependency{}
	for _, m := range moduleRow.FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("docs/dependencies.md has two rows for %s", m[1])
		}
		d := dependency{version: m[2]}
		if m[3] != "tests" {
			d.rooms = strings.Fields(strings.ReplaceAll(m[3], "`", ""))
		}
		rows[m[1]] = d
	}
	return rows
}

// required are the modules that go.mod requires directly, and their versions.
func required(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path, Version string
			Indirect      bool
		}
	}
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&mod); err != nil {
		t.Fatal(err)
	}
	direct := map[string]string{}
	for _, r := range mod.Require {
		if !r.Indirect {
			direct[r.Path] = r.Version
		}
	}
	return direct
}

// importers are our packages that import each module, tests apart.
func importers(t *testing.T) map[string][]string {
	t.Helper()
	all := list(t)
	from := map[string]string{}
	for _, l := range all {
		if l.Module != nil {
			from[l.ImportPath] = l.Module.Path
		}
	}
	by := map[string][]string{}
	for _, l := range all {
		for _, i := range l.Imports {
			if ours(l.ImportPath) && from[i] != "" && !ours(i) {
				by[from[i]] = append(by[from[i]], l.path())
			}
		}
	}
	return by
}
