package house

import (
	"bytes"
	_ "embed"
	"os"
	"os/exec"
	"strings"
	"testing"
)

//go:embed dead.txt
var deadText string

// TestNothingDead keeps at zero the functions that no program reaches, but
// for those that dead.txt names with what they wait for.
func TestNothingDead(t *testing.T) {
	if os.Getenv("CCRUN_LINT") != "1" {
		t.Skip("TestNothingDead runs under `make lint`: it takes a minute")
	}
	rows := table(t, deadText)
	for name, where := range unreachable(t) {
		if _, waits := rows[name]; !waits {
			t.Errorf("%s: no program reaches %s: delete it", where, name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is reached, or gone: take it out of tests/house/dead.txt", name)
	}
}

// unreachable lists package and function, and the place of each.
func unreachable(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "tool", "deadcode", "-tags", tags,
		"-f", "{{$p := .Path}}{{range .Funcs}}{{println $p .Name .Position}}{{end}}", "./cmd/...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("looking for dead functions: %v\n%s", err, &complaint)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		// A package like facetest is for tests, which deadcode does not read.
		if f := strings.Fields(line); len(f) == 3 && !strings.HasSuffix(f[0], "test") {
			found[within(f[0])+"."+f[1]] = f[2]
		}
	}
	return found
}
