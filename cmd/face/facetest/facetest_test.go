package facetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func app() *cli.App {
	return &cli.App{Name: "p", Flags: []cli.Flag{&cli.StringFlag{Name: "log-level"}}, Commands: []*cli.Command{
		{Name: "build", ArgsUsage: "A B", Flags: []cli.Flag{&cli.StringFlag{Name: "tee"}, &cli.BoolFlag{Name: "all", Aliases: []string{"a"}}}},
		{Name: "run", ArgsUsage: "IMAGE [ARG...]"},
		{Name: "doctor"},
		{Name: "workload", Subcommands: []*cli.Command{{Name: "ls", Aliases: []string{"list"}}, {Name: "rm", ArgsUsage: "ID"}}},
	}}
}

func TestParses(t *testing.T) {
	for line, good := range map[string]bool{
		"build x y --tee snp": true, "build --tee snp --all x y": true, "build -a x": true, "build --tee=snp x": true, "--log-level debug build x": true,
		"build --help": true, "--version": true, "workload": true, "workload ls|rm x": true, "workload list": true, "workload …": true, "run x --any --flag": true,
		"build [--tee TEE] x": true, "build ... x": true, "doctor": true, "scratch v1": true, "": true,
		"build --tte snp x": false, "biuld x": false, "workload move x": false, "workload ls|mv x": false, "doctor x": false, "workload ls x": false, "run --tee snp x": false,
	} {
		if err := Parses(app(), strings.Fields(line), "run"); (err == nil) != good {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestInText(t *testing.T) {
	text := "Say `p build x` or `p\nworkload ls`, not p build y.\n\n```sh\np build z \\\n    --tee snp  # a comment\necho $(p build q) | p run -\nA=1 sudo p doctor >out && p build r; px build s\n```\n\n    ExecStart=/usr/bin/p doctor\n\nProse again.\n```console\n$ p build t 'u v' \"w x\"\np: an error\n```\n"
	var got []string
	for _, l := range inText("f.md", text, "p") {
		got = append(got, fmt.Sprintf("%s %q", l.Where, l.Words))
	}
	want := []string{
		`f.md:5 ["build" "z" "--tee" "snp"]`, `f.md:7 ["build" "q"]`, `f.md:7 ["run" "-"]`, `f.md:8 ["doctor"]`, `f.md:8 ["build" "r"]`,
		`f.md:11 ["doctor"]`, `f.md:15 ["build" "t" "u v" "w x"]`, `f.md:1 ["build" "x"]`, `f.md:1 ["workload" "ls"]`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHelp(t *testing.T) {
	a := app()
	a.Commands[0].Description = "Example:\n   p build --tee snp a b"
	a.Commands[3].Subcommands[0].Flags = []cli.Flag{&cli.StringFlag{Name: "f", Usage: "`FILE` of \"p doctor\""}}
	if lines := Help(a, "p"); len(lines) != 2 {
		t.Errorf("%v", lines)
	}
}
