package wrapper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
