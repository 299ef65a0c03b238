package command

import (
	"bytes"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
)

// Every command takes --log-level and -q, and its help has an example.
func TestCommonFlags(t *testing.T) {
	var walk func(*testing.T, []*cli.Command)
	walk = func(t *testing.T, commands []*cli.Command) {
		for _, c := range commands {
			t.Run(c.Name, func(t *testing.T) {
				if !strings.Contains(c.Description, "Example") {
					t.Error("no example")
				}
				have := map[string]int{}
				for _, f := range c.Flags {
					for _, n := range f.Names() {
						have[n]++
					}
				}
				for name, n := range have {
					if n != 1 {
						t.Errorf("flag %s is there %d times", name, n)
					}
				}
				if have["log-level"] != 1 || have["q"] != 1 {
					t.Error("no --log-level or no -q")
				}
				walk(t, c.Subcommands)
			})
		}
	}
	walk(t, Program{Program: face.Program{Name: "p"}}.App().Commands)
}

// What is told to people carries the notice, and -q silences it in either
// place; what programs read stays.
func TestQuiet(t *testing.T) {
	for _, tc := range []struct {
		args  []string
		notes bool
	}{
		{[]string{"p", "init"}, true},
		{[]string{"p", "-q", "init"}, false},
		{[]string{"p", "init", "-q"}, false},
		{[]string{"p", "init", "--log-level", "error"}, false},
		{[]string{"p", "--log-level", "debug", "init"}, true},
	} {
		var out, notes bytes.Buffer
		app := Program{Program: face.Program{Name: "p", Notice: "a toy"}}.App()
		app.Writer, app.ErrWriter = &out, &notes
		if err := app.Run(append(tc.args, "--data", t.TempDir())); err != nil {
			t.Fatal(err)
		}
		if out.Len() == 0 {
			t.Errorf("%q: no token", tc.args)
		}
		if got := strings.HasPrefix(notes.String(), "p (a toy): created "); got != tc.notes {
			t.Errorf("%q: told %q", tc.args, notes.String())
		}
	}
	app := Program{Program: face.Program{Name: "p"}}.App()
	if err := app.Run([]string{"p", "--log-level", "loud", "init"}); face.Status(err) != face.Misused {
		t.Errorf("--log-level loud: %v", err)
	}
}

// What a command prints, it prints as JSON and by a template, too.
func TestFormats(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		app := Program{Program: face.Program{Name: "p"}}.App()
		app.Writer, app.ErrWriter = &out, &bytes.Buffer{}
		err := app.Run(append([]string{"p"}, args...))
		return strings.TrimSpace(out.String()), err
	}
	if _, err := run("init", "--data", dir); err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][]string{
		{"{{len .}}", "1", "token", "ls"},
		{"{{len .}}", "0", "tenant", "ls"},
		{"{{len .}}", "2", "certs", "ls"},
		{"{{.Sequence}}", "1", "audit", "verify"},
	} {
		args := append(tc[2:], "--data", dir, "--format")
		if got, err := run(append(args, tc[0])...); err != nil || got != tc[1] {
			t.Errorf("%q: %q, %v; expected %q", args, got, err, tc[1])
		}
		if got, err := run(append(args, "json")...); err != nil || !strings.ContainsAny(got[:1], "[{n") {
			t.Errorf("%q json: %q, %v", args, got, err)
		}
		if _, err := run(append(args, "{{")...); face.Status(err) != face.Misused {
			t.Errorf("%q {{: %v, expected a usage error", args, err)
		}
	}
}
