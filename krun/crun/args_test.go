package crun

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Command{
		"krun":                                          {},
		"krun --version":                                {},
		"krun -V":                                       {},
		"krun --help create x":                          {},
		"krun create":                                   {},
		"krun create --help x":                          {},
		"krun create x":                                 {Verb: "create", ID: "x"},
		"krun create -b /b x":                           {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create -b/b x":                            {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create --bundle=/b --bundle /c x":         {Verb: "create", ID: "x", Bundle: "/c"},
		"krun --root /r create --bund /b x":             {Verb: "create", ID: "x", Bundle: "/b"},
		"krun --log-l debug create -b /b x":             {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create -db /b x":                          {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create --bun /b x":                        {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create -f spec.json -- -x":                {Verb: "create", ID: "-x", Config: "spec.json"},
		"krun run -db /b --preserve-fds 3 --keep x y":   {Verb: "run", ID: "x", Bundle: "/b"},
		"krun --root create --log delete create x":      {Verb: "create", ID: "x", Log: "delete"},
		"krun --root=/r --systemd-cgroup --debug run x": {Verb: "run", ID: "x"},
		"krun --log-format json --log file:/l start x":  {Verb: "start", ID: "x", Log: "file:/l", JSON: true},
		"krun --cgroup-m cgroupfs --rootless true ps x": {Verb: "ps"},
		"krun delete -rf ^x$":                           {Verb: "delete", ID: "^x$", Regex: true},
		"krun delete --force x":                         {Verb: "delete", ID: "x"},
		"krun exec --bundle-like x":                     {Verb: "exec"},
		"krun -- create x":                              {Verb: "create", ID: "x"},
	} {
		argv := strings.Fields(line)
		got, err := Parse(argv)
		if err != nil || !got.same(want) {
			t.Errorf("%s: %+v (%v), want %+v", line, got, err, want)
		}
		if !slices.Equal(got.Args(), argv[1:]) {
			t.Errorf("%s: crun gets %q", line, got.Args())
		}
	}
	for _, line := range []string{
		"krun --unknown create x", "krun -z create x", "krun --root", "krun create --bundle", "krun create -b",
		"krun create --no-p=1 --no x", "krun create --no-such -b /b x", "krun --criu x create -b /b x", "krun create --shell x", "krun --l /x create y",
	} {
		if c, err := Parse(strings.Fields(line)); err == nil {
			t.Errorf("%s: understood as %+v", line, c)
		}
	}
}

func (c Command) same(d Command) bool {
	return c.Verb == d.Verb && c.ID == d.ID && c.Bundle == d.Bundle && c.Config == d.Config &&
		c.Regex == d.Regex && c.Log == d.Log && c.JSON == d.JSON
}

// TestParseOwnOptions takes out what is the runtime's own, before the verb
// only, and nothing else.
func TestParseOwnOptions(t *testing.T) {
	for line, want := range map[string]struct{ root, args, config string }{
		"sim --sample-root=/r create -b /b x":         {"/r", "create -b /b x", "create -b /b --config C x"},
		"sim --debug --sample-r /r create -b /b x":    {"/r", "--debug create -b /b x", "--debug create -b /b --config C x"},
		"sim --sample-root /r -- create -db/b -f o x": {"/r", "-- create -db/b -f o x", "-- create -db/b -f o --config C x"},
		"sim --sample-root /r --root /x run -- x":     {"/r", "--root /x run -- x", "--root /x run --config C -- x"},
		"sim start --sample-root x":                   {"", "start --sample-root x", ""},
		"sim --sample-root /r":                        {"/r", "", ""},
	} {
		c, err := Parse(strings.Fields(line), "sample-root")
		if err != nil || c.Own["sample-root"] != want.root || strings.Join(c.Args(), " ") != want.args {
			t.Errorf("%s: %q, crun gets %q (%v)", line, c.Own, c.Args(), err)
		}
		if got := strings.Join(c.WithConfig("C"), " "); c.Creates() && got != want.config {
			t.Errorf("%s: with a configuration: %q", line, got)
		}
	}
	for _, line := range []string{"sim create --sample-root /r x", "sim --sample-root", "sim --s /r create x"} {
		if c, err := Parse(strings.Fields(line), "sample-root"); err == nil {
			t.Errorf("%s: understood as %+v", line, c)
		}
	}
}

// FuzzParse: crun gets the words that we got, and a command that makes or
// deletes a container names one.
func FuzzParse(f *testing.F) {
	f.Add("krun --log=x create -b /b id")
	f.Add("krun -- delete -rf -- id")
	f.Fuzz(func(t *testing.T, line string) {
		argv := strings.Fields(line)
		c, err := Parse(argv)
		if err != nil || len(argv) == 0 {
			return
		}
		if (c.Creates() || c.Verb == "delete") && c.ID == "" {
			t.Fatal("a container without an id")
		}
		if !slices.Equal(c.Args(), argv[1:]) {
			t.Fatalf("crun gets %q of %q", c.Args(), argv)
		}
		if !c.Creates() {
			return
		}
		again, err := Parse(append(argv[:1:1], c.WithConfig("/c")...))
		if err != nil || again.Config != "/c" || again.ID != c.ID || again.Bundle != c.Bundle {
			t.Fatalf("with a configuration: %+v (%v), was %+v", again, err, c)
		}
	})
}
