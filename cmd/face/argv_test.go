package face

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestIntersperse(t *testing.T) {
	p := Program{Name: "p", Raw: []string{"run"}}
	for in, want := range map[string]string{
		"p unit IMG -p 1:1 --name x":      "p unit -p 1:1 --name x IMG",
		"p run --rm IMG -p 1:1":           "p run --rm IMG -p 1:1",
		"p -q run IMG sh -c x":            "p -q run IMG sh -c x",
		"p unit IMG -- -x":                "p unit IMG -- -x",
		"p unit --name=x IMG -q IMG2":     "p unit --name=x -q IMG IMG2",
		"p --log-level debug unit IMG -q": "p --log-level debug unit -q IMG",
		"p bogus --x":                     "p bogus --x",
		"p":                               "p",
	} {
		app := &cli.App{Commands: []*cli.Command{
			{Name: "run", Flags: []cli.Flag{&cli.BoolFlag{Name: "rm"}}},
			{Name: "unit", Flags: []cli.Flag{&cli.StringFlag{Name: "name"}, &cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}}}},
		}}
		p.Prepare(app)
		if got := strings.Join(Intersperse(app, strings.Fields(in), p.Raw...), " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
