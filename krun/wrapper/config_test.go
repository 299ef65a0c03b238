package wrapper

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
)

func TestStateDirs(t *testing.T) {
	dir := t.TempDir()
	initial, nested := filepath.Join(dir, "initial"), filepath.Join(dir, "nested")
	for path, text := range map[string]string{initial: "         0          0 4294967295\n", nested: "0 1000 1\n1 100000 65536\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const system, user, data = "/run/ccrun /var/lib/ccrun/run", "/run/user/1000/ccrun", "/home/u/.local/share/ccrun/run"
	for _, c := range []struct {
		euid      int
		env, uids string
		want      string
	}{
		{0, "XDG_RUNTIME_DIR=/run/user/0", initial, system},
		{0, "", initial, system},
		{0, "XDG_RUNTIME_DIR=/run/user/1000", nested, user},
		{1000, "XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/u", initial, user + " " + data},
		{1000, "HOME=/home/u", initial, data},
		{1000, "HOME=/home/u XDG_DATA_HOME=/d", initial, "/d/ccrun/run"},
		{1000, "", initial, ""},
		{0, "XDG_RUNTIME_DIR=relative HOME=.", nested, ""},
		{0, "XDG_RUNTIME_DIR=/run", filepath.Join(dir, "none"), ""},
	} {
		getenv := func(name string) string {
			for _, kv := range strings.Fields(c.env) {
				if v, ok := strings.CutPrefix(kv, name+"="); ok {
					return v
				}
			}
			return ""
		}
		got, err := stateDirs(c.euid, getenv, c.uids)
		if strings.Join(got, " ") != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q (%v)", c, got, err)
		}
	}
}

func TestFirstExecutable(t *testing.T) {
	forbidden := func(names ...string) func(string) (bool, error) {
		return func(d string) (bool, error) { return slices.Contains(names, d), nil }
	}
	if got, err := firstExecutable([]string{"/run", "/var"}, forbidden("/run")); err != nil || got != "/var" {
		t.Errorf("got %q, %v, expected the one that executes", got, err)
	}
	_, err := firstExecutable([]string{"/run", "/var"}, forbidden("/run", "/var"))
	if err == nil || !strings.Contains(err.Error(), "/run is on a file system mounted noexec") || !strings.Contains(hint.Of(err), "state_dir") {
		t.Errorf("nowhere to execute: %v; %s", err, hint.Of(err))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), "noexec") {
			continue
		}
		// A later mount may cover it, hence the path itself must say so, too.
		if no, err := isNoExec(f[1]); err == nil && no {
			if no, err := isNoExec(filepath.Join(f[1], "none/below")); err != nil || !no {
				t.Errorf("below %s: noexec %v, %v, expected what its nearest ancestor is", f[1], no, err)
			}
		}
	}
	if no, err := isNoExec(filepath.Join(t.TempDir(), "a/b")); err != nil || no {
		t.Errorf("a directory where tests are built: noexec %v, %v", no, err)
	}
}

func TestReadConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "krun.json")
	if c, err := readConfig(path); err != nil || c != (Config{}) {
		t.Errorf("no file: %+v (%v)", c, err)
	}
	for text, ok := range map[string]bool{
		`{"crun":"/opt/crun","library":"/opt/libkrunfw-sev.so.5"}`: true, `{}`: true, ``: false, `{"crun":"crun"}`: false,
		`{"crun":"/a","crun":"/b"}`: false, `{"state_dir":"/x"}`: true, `{"state_dir":"x"}`: false, `{"runtime":"/a"}`: false, `{} {}`: false,
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
