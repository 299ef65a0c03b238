package house

import (
	_ "embed"
	"slices"
	"strings"
	"testing"
)

var (
	//go:embed arrows.txt
	arrowsText string
	//go:embed outside.txt
	outsideText string
)

// grounds may be imported by all, and import nothing of ours.
var grounds = []string{"secret", "hint", "bounded"}

// askForTags is empty; who needs build tags imports it.
const askForTags = "hint/set_GOFLAGS_as_in_AGENTS.md"

// climbs are arrows that no row of arrows.txt may allow. A name stands for
// what lies below it, too.
var climbs = []struct {
	from string
	to   []string
	but  []string
	why  string
}{
	{"attest-server", []string{"krun", "luks", "workload", "cmd"}, nil,
		"the trusted side knows nothing of the machines it judges"},
	{"luks", []string{"attest-server", "krun", "workload", "cmd"}, nil,
		"a disk knows nothing of TEEs or containers"},
	{"krun", []string{"workload", "cmd"}, nil, "arrows run down"},
	{"krun", []string{"attest-server"}, []string{"attest-server/kbs", "attest-server/verifier/eventlog", "attest-server/sample"},
		"a machine speaks the protocol; it judges nothing"},
	{"workload", []string{"cmd", "krun/guest", "krun/wrapper", "krun/podman"}, nil, "arrows run down"},
	{"workload", []string{"attest-server"}, []string{"attest-server/kbs"},
		"who builds an image registers it by the protocol"},
	{"krun/guest", []string{"attest-server/sample", "attest-server/verifier"}, nil,
		"the agent shows Evidence and judges nothing"},
}

// simulated are the only ones that may import the simulated TEE.
var simulated = []string{"krun/sim", "cmd/ccrun-sim"}

// table reads rows of the form "who: whom whom".
func table(t *testing.T, text string) map[string][]string {
	t.Helper()
	rows := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if _, twice := rows[name]; twice || !ok {
			t.Fatalf("%q is no row, or the second of %s", line, name)
		}
		rows[name] = strings.Fields(rest)
	}
	return rows
}

// surplus says what a table allows and nobody does.
func surplus(t *testing.T, file, what string) {
	t.Helper()
	t.Errorf("take out of tests/house/%s, nobody needs it: %s", file, what)
}

// TestArrows holds arrows.txt against what the packages import.
func TestArrows(t *testing.T) {
	rows := table(t, arrowsText)
	for _, l := range list(t) {
		if !ours(l.ImportPath) || len(l.GoFiles) == 0 || forTests(l.path()) || l.path() == askForTags {
			continue
		}
		may, known := rows[l.path()]
		if !known {
			t.Errorf("package %s is not in tests/house/arrows.txt", l.path())
		}
		delete(rows, l.path())
		judgeArrows(t, l.path(), l.oursImported(), may)
	}
	for path := range rows {
		surplus(t, "arrows.txt", path+", which does not exist")
	}
}

func judgeArrows(t *testing.T, from string, does, may []string) {
	t.Helper()
	for _, to := range does {
		if forTests(to) {
			t.Errorf("%s imports %s, which is for tests only", from, to)
		}
		ground := slices.Contains(grounds, to) && !slices.Contains(grounds, from)
		if !ground && !slices.Contains(may, to) {
			t.Errorf("%s imports %s, which tests/house/arrows.txt does not allow", from, to)
		}
	}
	for _, to := range may {
		if !slices.Contains(does, to) {
			surplus(t, "arrows.txt", from+" -> "+to)
		}
	}
}

// TestNoArrowClimbs holds arrows.txt itself, and the packages that hold tests'
// fixtures, to the order of the layers.
func TestNoArrowClimbs(t *testing.T) {
	for _, l := range list(t) {
		if ours(l.ImportPath) && forTests(l.path()) && !under(l.path(), "tests") {
			for _, to := range l.oursImported() {
				judgeClimb(t, l.path(), to)
			}
		}
	}
	for from, tos := range table(t, arrowsText) {
		for _, to := range tos {
			judgeClimb(t, from, to)
			if under(to, "attest-server/sample") && !slices.Contains(simulated, from) {
				t.Errorf("%s may not import %s: only the simulation reaches the simulated TEE", from, to)
			}
		}
	}
}

func judgeClimb(t *testing.T, from, to string) {
	t.Helper()
	for _, c := range climbs {
		if under(from, c.from) && underAny(to, c.to) && !underAny(to, c.but) {
			t.Errorf("%s may not import %s: %s", from, to, c.why)
		}
	}
	if under(to, "cmd") && !under(from, "cmd") {
		t.Errorf("%s may not import %s: programs are the top", from, to)
	}
}

// TestOutside holds outside.txt against what the packages import.
func TestOutside(t *testing.T) {
	rows, all := table(t, outsideText), list(t)
	row := rowsOf(all, rows)
	used := map[[2]string]bool{}
	for _, l := range all {
		for _, i := range l.Imports {
			if !ours(l.ImportPath) || forTests(l.path()) || row[i] == "" {
				continue
			}
			used[[2]string{row[i], l.path()}] = true
			if !slices.Contains(rows[row[i]], l.path()) {
				t.Errorf("%s imports %s, which tests/house/outside.txt does not allow", l.path(), i)
			}
		}
	}
	for name, importers := range rows {
		for _, p := range importers {
			if !used[[2]string{name, p}] {
				surplus(t, "outside.txt", p+" from the row of "+name)
			}
		}
	}
}

// rowsOf says of each package from outside which row of outside.txt is its
// own: its module's or, in the standard library, one of its name, if any.
func rowsOf(all []listed, rows map[string][]string) map[string]string {
	row := map[string]string{}
	for _, l := range all {
		switch {
		case ours(l.ImportPath):
		case l.Module != nil:
			row[l.ImportPath] = l.Module.Path
		case rows[l.ImportPath] != nil:
			row[l.ImportPath] = l.ImportPath
		}
	}
	return row
}

// forTests says of a package that no program imports it: then only the order
// of the layers binds it.
func forTests(path string) bool { return under(path, "tests") || strings.HasSuffix(path, "test") }

func (l listed) oursImported() (paths []string) {
	for _, i := range l.Imports {
		if ours(i) && within(i) != askForTags {
			paths = append(paths, within(i))
		}
	}
	return paths
}

// under says whether a path is name or lies below it.
func under(path, name string) bool {
	return path == name || strings.HasPrefix(path, name+"/")
}

func underAny(path string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return under(path, n) })
}
