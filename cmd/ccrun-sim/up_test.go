package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpRefuses: `down` removes a directory, so `up` takes none that holds
// somebody's files, and `down` none that `up` has not made.
func TestUpRefuses(t *testing.T) {
	others := t.TempDir()
	precious := filepath.Join(others, "thesis")
	writeText(t, precious, "mine")
	made := t.TempDir()
	writeText(t, filepath.Join(made, siteFile), `{"port":8743,"version":1}`)
	broken := t.TempDir()
	writeText(t, filepath.Join(broken, siteFile), `{"port":8743,"version":1,"more":1}`)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"up", "--dir", others}, 1, "is not empty"},
		{[]string{"down", "--dir", others}, 1, "is not what `ccrun-sim up` made"},
		{[]string{"down", "--dir", filepath.Join(others, "none")}, 1, "name its directory"},
		{[]string{"up", "--dir", made, "--port", "8744"}, 2, "at port 8743"},
		{[]string{"up", "--dir", broken}, 1, "more"},
		{[]string{"up", "--dir", filepath.Join(others, "new"), "--port", "0"}, 2, "1 to 65535"},
		{[]string{"up", "--kernel", "vmlinuz"}, 2, "--modules"},
		{[]string{"up", "DIR"}, 2, ""},
	} {
		if r := execute(t, nil, "ccrun-sim", c.args...); r.code != c.code || !strings.Contains(r.stderr, c.want) {
			t.Errorf("ccrun-sim %v: status %d, %q, expected %d with %q", c.args, r.code, r.stderr, c.code, c.want)
		}
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "mine" {
		t.Errorf("somebody's file: %q, %v", b, err)
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestShellQuoted(t *testing.T) {
	if got, want := shellQuoted("/it's/a dir"), `'/it'\''s/a dir'`; got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
}

func TestGateway(t *testing.T) {
	if got, err := gatewayOf(defaultCmdline); err != nil || got != "100.127.255.2" {
		t.Errorf("gateway of the default: %q, %v", got, err)
	}
	for _, bad := range []string{"", "quiet", "ccrun.net=", "ccrun.net=10.0.0.1/24", "ccrun.net=10.0.0.1/24,"} {
		if got, err := gatewayOf(bad); err == nil {
			t.Errorf("%q: gateway %q, expected an error", bad, got)
		}
	}
}

func TestLower(t *testing.T) {
	for _, c := range [][3]string{{"5", "7", "5"}, {"7", "5", "5"}, {"unlimited", "5", "5"}, {"5", "", "5"}, {"unlimited", "", ""}} {
		if got := lower(c[0], c[1]); got != c[2] {
			t.Errorf("lower(%q, %q) is %q, expected %q", c[0], c[1], got, c[2])
		}
	}
}
