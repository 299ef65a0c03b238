package rootfs

import (
	"errors"
	"strings"
	"testing"
)

func TestRealPath(t *testing.T) {
	tree := mustMerge(t, layer(t, d("run"), s("var/run", "/run"), s("etc/app", "../opt/./app"), d("opt/app"), s("loop", "loop"), f("file", ""),
		s("up", "../etc"), s("deep/up", "../../etc"), s("abs/up", "/../etc"), s("chain", "var/run/x"), s("last", "/etc"), s("run/in", "..")))
	for p, want := range map[string]string{
		"/etc/x": "/etc/x", "/var/run/secrets/x": "/run/secrets/x", "/etc/app/db": "/opt/app/db", "/new/dir/x": "/new/dir/x",
		"/var/run/new/x": "/run/new/x", "/chain/y": "/run/x/y", "/last": "/last", "/run/in/x": "/x", "/x": "/x",
	} {
		if got, err := tree.RealPath(p); err != nil || got != want {
			t.Errorf("%s is %q, %v, expected %s", p, got, err, want)
		}
	}
	for p, want := range map[string]error{"/up/x": ErrOutOfRoot, "/deep/up/x": ErrOutOfRoot, "/abs/up/x": ErrOutOfRoot, "/loop/x": nil, "/file/x": nil} {
		if got, err := tree.RealPath(p); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s is %q, %v", p, got, err)
		}
	}
}

func TestAddLink(t *testing.T) {
	tree := mustMerge(t, layer(t, d("etc").mode(0o700).owner(5, 6), f("file", ""), s("link", "etc"), s("dir", "/etc")))
	for p, target := range map[string]string{"/etc/db": "/run/secrets/db", "/new/deep/db": "/x"} {
		if err := tree.AddLink(p, target); err != nil {
			t.Errorf("%s: %v", p, err)
		}
		if n := tree.Lookup(p); n == nil || n.Kind != Symlink || n.Target() != target || n.UID != 0 {
			t.Errorf("%s: %+v", p, n)
		}
	}
	if n := tree.Lookup("/etc"); n.Perm != 0o700 || n.UID != 5 {
		t.Errorf("/etc became %s", describe(n))
	}
	for _, p := range []string{"/file", "/etc", "/link", "/file/x", "/dir/x", "/etc/db", "/"} {
		if err := tree.AddLink(p, "/x"); err == nil || strings.Contains(err.Error(), "\x00") {
			t.Errorf("%s: added", p)
		}
	}
}
