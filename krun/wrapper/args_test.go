package wrapper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]command{
		"krun":                                  {},
		"krun --version":                        {},
		"krun -V":                               {},
		"krun --help create x":                  {},
		"krun create":                           {},
		"krun create --help x":                  {},
		"krun create x":                         {verb: "create", id: "x"},
		"krun create -b /b x":                   {verb: "create", id: "x", bundle: "/b"},
		"krun create -b/b x":                    {verb: "create", id: "x", bundle: "/b"},
		"krun create --bundle=/b --bundle /c x": {verb: "create", id: "x", bundle: "/c"},
		"krun create --bun /b x":                {verb: "create", id: "x", bundle: "/b"},
		"krun create -f spec.json -- -x":        {verb: "create", id: "-x", config: "spec.json"},
		"krun run -db /b --preserve-fds 3 --keep x y":   {verb: "run", id: "x", bundle: "/b"},
		"krun --root create --log delete create x":      {verb: "create", id: "x", log: "delete"},
		"krun --root=/r --systemd-cgroup --debug run x": {verb: "run", id: "x"},
		"krun --log-format json --log file:/l start x":  {verb: "start", log: "file:/l", json: true},
		"krun --cgroup-m cgroupfs --rootless true ps x": {verb: "ps"},
		"krun delete -rf ^x$":                           {verb: "delete", id: "^x$", regex: true},
		"krun delete --force x":                         {verb: "delete", id: "x"},
		"krun exec --bundle-like x":                     {verb: "exec"},
		"krun -- create x":                              {verb: "create", id: "x"},
	} {
		got, err := parse(strings.Fields(line))
		if err != nil || got != want {
			t.Errorf("%s: %+v (%v), want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{
		"krun --unknown create x", "krun -z create x", "krun --root", "krun create --bundle", "krun create -b",
		"krun create --no-p=1 --no x", "krun create --shell x", "krun --l /x create y",
	} {
		if c, err := parse(strings.Fields(line)); err == nil {
			t.Errorf("%s: understood as %+v", line, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("krun --log=x create -b /b id")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parse(strings.Split(line, "\x00"))
		if err == nil && (c.verb == "create" || c.verb == "delete") && c.id == "" && !strings.Contains(line, "\x00") {
			t.Fatal("a container without an id")
		}
	})
}

func TestStateDir(t *testing.T) {
	dir := t.TempDir()
	initial, nested := filepath.Join(dir, "initial"), filepath.Join(dir, "nested")
	for path, text := range map[string]string{initial: "         0          0 4294967295\n", nested: "0 1000 1\n1 100000 65536\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		euid                int
		runtime, uids, want string
	}{
		{0, "/run/user/0", initial, "/run/ccrun"},
		{0, "", initial, "/run/ccrun"},
		{0, "/run/user/1000", nested, "/run/user/1000/ccrun"},
		{1000, "/run/user/1000", initial, "/run/user/1000/ccrun"},
		{1000, "", initial, ""},
		{0, "relative", nested, ""},
		{0, "/run", filepath.Join(dir, "none"), ""},
	} {
		if got, err := stateDir(c.euid, c.runtime, c.uids); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q (%v)", c, got, err)
		}
	}
}

func TestReadConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "krun.json")
	if c, err := readConfig(path); err != nil || c != (Config{}) {
		t.Errorf("no file: %+v (%v)", c, err)
	}
	for text, ok := range map[string]bool{
		`{"crun":"/opt/crun","library":"/opt/libkrunfw-sev.so.5"}`: true, `{}`: true, ``: false, `{"crun":"crun"}`: false,
		`{"crun":"/a","crun":"/b"}`: false, `{"runtime":"/a"}`: false, `{} {}`: false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if c, err := readConfig(path); (err == nil) != ok {
			t.Errorf("%q: %+v (%v)", text, c, err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(path); err == nil || !strings.Contains(err.Error(), "only its owner") {
		t.Errorf("world-writable configuration: %v", err)
	}
}
