package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// leastMutants keeps the list from shrinking unseen.
const leastMutants = 150

// TestMutantsApply holds every mutant to the code of today. Where it fails, the
// condition was rewritten: say the same mutation in the new words, or take the
// entry out together with the condition.
func TestMutantsApply(t *testing.T) {
	all, err := readList("list")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < leastMutants {
		t.Errorf("%d mutants, expected at least %d", len(all), leastMutants)
	}
	for _, m := range all {
		if _, err := m.apply(root); err != nil {
			t.Errorf("%s: %v", m.id, err)
		}
		for _, pkg := range m.tests {
			if tests, _ := filepath.Glob(filepath.Join(root, pkg, "*_test.go")); len(tests) == 0 {
				t.Errorf("%s: package %s has no tests", m.id, pkg)
			}
		}
	}
	if _, err := readSurvivors("survivors.txt", all); err != nil {
		t.Error(err)
	}
}

func TestParseList(t *testing.T) {
	list, err := parseList("# none\nmutant A it is open\nfile a.go\ntest ./a ./b\nrun TestA|TestB\n- if x {\n- \ty()\n+ if false {\n- z\nfile b.go\n- w\n+ \n")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	m := list[0]
	want := []change{{"a.go", "if x {\n\ty()", "if false {"}, {"a.go", "z", ""}, {"b.go", "w", ""}}
	if m.id != "A" || m.means != "it is open" || m.run != "TestA|TestB" || !slices.Equal(m.tests, []string{"./a", "./b"}) || !slices.Equal(m.changes, want) {
		t.Errorf("%+v", m)
	}
	for _, bad := range []string{"file a.go\n", "mutant A b\n- x\n", "mutant A b\nfile a\n+ x\n", "mutant A b\nfiles a\n"} {
		if list, err := parseList(bad); err == nil {
			t.Errorf("%q: %+v", bad, list)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte("package a\n\nvar x, y = 1, 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]change{
		"0 times": {"a.go", "z", ""},
		"2 times": {"a.go", "1", "2"},
		"not Go":  {"a.go", "var", "("},
		"no such": {"b.go", "x", "z"},
	} {
		m := mutant{changes: []change{c}}
		if files, err := m.apply(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v, expected %q", c, files, err, want)
		}
	}
	m := mutant{changes: []change{{"a.go", "x", "z"}, {"a.go", "y", "w"}}}
	if files, err := m.apply(dir); err != nil || string(files["a.go"]) != "package a\n\nvar z, w = 1, 1\n" {
		t.Errorf("%q, %v", files, err)
	}
}

// TestChoose: who has the seed can run the same ten again.
func TestChoose(t *testing.T) {
	all := make([]mutant, 40)
	for i := range all {
		all[i].id = string(rune('A' + i))
	}
	ids := func(seed string) (s string) {
		for _, m := range choose(all, 10, seed) {
			s += m.id
		}
		return s
	}
	if a, b := ids("one"), ids("one"); a != b || len(a) < 10 || a == ids("two") {
		t.Errorf("%s, %s, %s", a, b, ids("two"))
	}
	if n := len(choose(all, 50, "")); n != len(all) {
		t.Errorf("%d of %d", n, len(all))
	}
}

// TestJudge runs mutants of a module of its own: only what fails a test that
// passes without it is killed.
func TestJudge(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module m\n\ngo 1.26\n",
		"p/p.go":      "package p\n\nimport \"os\"\n\nvar _ = os.Args\n\nfunc open(x int) bool { return x > 3 && x < 9 }\n",
		"p/p_test.go": "package p\n\nimport \"testing\"\n\nfunc TestOpen(t *testing.T) {\n\tif open(3) {\n\t\tt.Error(\"open\")\n\t}\n}\n",
		"q/q.go":      "package q\n\nfunc x() int { return 1 }\n",
		"q/q_test.go": "package q\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Error(\"always\") }\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "-trimpath") // as elsewhere, so that the standard library is built already
	j := &judge{root: dir, tmp: t.TempDir(), fails: map[string][]string{}}
	for name, c := range map[string]struct {
		run, old, new string
		want          verdict
	}{
		"noticed":             {"TestOpen", "x > 3", "x > 2", killed},
		"not noticed":         {"TestOpen", "x < 9", "x < 99", survived},
		"does not compile":    {"TestOpen", "x < 9", "y < 9", broken},
		"any of its tests":    {"", "x > 3", "x > 2", killed},
		"no such test":        {"TestNone", "x > 3", "x > 2", broken},
		"killed from outside": {"TestOpen", "return", "os.Exit(3); return", undecided},
	} {
		m := mutant{id: "A", tests: []string{"./p"}, run: c.run, changes: []change{{"p/p.go", c.old, c.new}}}
		if o := j.run(context.Background(), m); o.Verdict != c.want {
			t.Errorf("%s: %+v, expected %s", name, o, c.want)
		}
	}
	bad := mutant{id: "B", tests: []string{"./q"}, changes: []change{{"q/q.go", "return 1", "return 2"}}}
	if o := j.run(context.Background(), bad); o.Verdict != survived {
		t.Errorf("tests that fail anyway: %+v", o)
	}
	b, err := os.ReadFile(filepath.Join(dir, "p/p.go"))
	if err != nil || !strings.Contains(string(b), "x > 3 && x < 9") {
		t.Errorf("the tree was changed: %q, %v", b, err)
	}
}
