package crun

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Command{
		"krun":                                  {},
		"krun --version":                        {},
		"krun -V":                               {},
		"krun --help create x":                  {},
		"krun create":                           {},
		"krun create --help x":                  {},
		"krun create x":                         {Verb: "create", ID: "x"},
		"krun create -b /b x":                   {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create -b/b x":                    {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create --bundle=/b --bundle /c x": {Verb: "create", ID: "x", Bundle: "/c"},
		"krun create --bun /b x":                {Verb: "create", ID: "x", Bundle: "/b"},
		"krun create -f spec.json -- -x":        {Verb: "create", ID: "-x", Config: "spec.json"},
		"krun run -db /b --preserve-fds 3 --keep x y":   {Verb: "run", ID: "x", Bundle: "/b"},
		"krun --root create --log delete create x":      {Verb: "create", ID: "x", Log: "delete"},
		"krun --root=/r --systemd-cgroup --debug run x": {Verb: "run", ID: "x"},
		"krun --log-format json --log file:/l start x":  {Verb: "start", Log: "file:/l", JSON: true},
		"krun --cgroup-m cgroupfs --rootless true ps x": {Verb: "ps"},
		"krun delete -rf ^x$":                           {Verb: "delete", ID: "^x$", Regex: true},
		"krun delete --force x":                         {Verb: "delete", ID: "x"},
		"krun exec --bundle-like x":                     {Verb: "exec"},
		"krun -- create x":                              {Verb: "create", ID: "x"},
	} {
		got, err := Parse(strings.Fields(line))
		if err != nil || got != want {
			t.Errorf("%s: %+v (%v), want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{
		"krun --unknown create x", "krun -z create x", "krun --root", "krun create --bundle", "krun create -b",
		"krun create --no-p=1 --no x", "krun create --shell x", "krun --l /x create y",
	} {
		if c, err := Parse(strings.Fields(line)); err == nil {
			t.Errorf("%s: understood as %+v", line, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("krun --log=x create -b /b id")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := Parse(strings.Split(line, "\x00"))
		if err == nil && (c.Verb == "create" || c.Verb == "delete") && c.ID == "" && !strings.Contains(line, "\x00") {
			t.Fatal("a container without an id")
		}
	})
}
