package face

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func shop() (Program, *cli.App) {
	p := Program{
		Name: "p-q", Completion: Completion{Values: map[string][]string{"tee": {"snp", "tdx"}},
			Names: map[string]func(context.Context) []string{"ID": func(context.Context) []string { return []string{"shop", "bank\x1b"} }}},
	}
	app := &cli.App{Commands: []*cli.Command{
		{Name: "build", ArgsUsage: "SOURCE DEST", Flags: []cli.Flag{&cli.StringFlag{Name: "tee"}, &cli.BoolFlag{Name: "rm"}}},
		{Name: "workload", Subcommands: []*cli.Command{{Name: "show", ArgsUsage: "ID"}, {Name: "rm", ArgsUsage: "ID..."}, {Name: "secretly", Hidden: true}}},
	}}
	p.Prepare(app)
	return p, app
}

func TestCandidates(t *testing.T) {
	for line, want := range map[string]string{
		"":                        "build workload completion version",
		"b":                       "build",
		"workload ":               "show rm",
		"--log-level debug work":  "workload",
		"build --t":               "--tee",
		"build --tee ":            "snp tdx",
		"build a --tee t":         "tdx",
		"build --tee=s":           "--tee=snp",
		"build --rm ":             "", // SOURCE: nothing known, so that the shell offers files
		"workload show ":          "shop bank?",
		"workload show shop ":     "",
		"workload rm shop ":       "shop bank?",
		"workload rm --quiet s":   "shop",
		"nonsense ":               "",
		"workload show --log-lev": "--log-level",
	} {
		p, app := shop()
		var out bytes.Buffer
		app.Writer = &out
		if status := p.Run(t.Context(), app, append([]string{"p-q", "__complete"}, strings.Split(line, " ")...)); status != 0 {
			t.Errorf("%q: status %d", line, status)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q: %q, expected %q", line, got, want)
		}
	}
}

// The scripts are such that their shells take them, where they are installed.
func TestCompletionScripts(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		p, app := shop()
		var out bytes.Buffer
		app.Writer = &out
		if p.Run(t.Context(), app, []string{"p-q", "completion", shell}) != 0 || !strings.Contains(out.String(), "p-q __complete") {
			t.Fatalf("%s: %s", shell, &out)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		cmd := exec.Command(path, check...)
		cmd.Stdin = &out
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", shell, err, b)
		}
	}
}

// In bash itself, TAB gives what the program says.
func TestCompletionInBash(t *testing.T) {
	p, app := shop()
	var script bytes.Buffer
	app.Writer = &script
	p.Run(t.Context(), app, []string{"p-q", "completion", "bash"})
	cmd := exec.Command("bash", "--norc", "-c", `p-q() { local IFS=" "; [[ "$*" == "__complete build --tee t" ]] && printf '%s\n' tdx tea; }
source /dev/stdin
COMP_WORDS=(p-q build --tee t) COMP_CWORD=3; _p_q; echo "${COMPREPLY[@]}"`)
	cmd.Stdin = &script
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "tdx tea" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWrapped(t *testing.T) {
	for line, want := range map[string][]string{
		"short":                              {"short"},
		"   --a X  one two three four":       {"   --a X  one two", "          three four"},
		"one two three four five six":        {"one two three four", "five six"},
		"   averyverylongwordthatdoesnotfit": {"   averyverylongwordthatdoesnotfit"},
		"   --averyvery long  text of it":    {"   --averyvery long", "         text of it"},
	} {
		if got := strings.Split(strings.TrimSuffix(wrapped(line+"\n", 20), "\n"), "\n"); !slices.Equal(got, want) {
			t.Errorf("%q: %q, expected %q", line, got, want)
		}
	}
}

func TestVersionAndManualPage(t *testing.T) {
	for args, want := range map[string]string{
		"--version": "p-q version " + Version() + "\n",
		"version":   "p-q " + Version() + " (go",
		"man":       ".SH NAME\np-q",
	} {
		p, app := shop()
		var out bytes.Buffer
		app.Writer = &out
		if status := p.Run(t.Context(), app, []string{"p-q", args}); status != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: status %d, %.300s", args, status, out.String())
		}
	}
}
