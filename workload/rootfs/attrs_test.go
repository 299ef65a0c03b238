package rootfs

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var someTime = time.Unix(1234567890, 987654321)

func describe(n *Node) string {
	if n == nil {
		return "absent"
	}
	out := fmt.Sprintf("%s %o %d:%d %d.%d", n.Kind, n.Perm, n.UID, n.GID, n.sec, n.nsec)
	for _, x := range n.Xattrs() {
		out += fmt.Sprintf(" %s=%s", x.Name, x.Value)
	}
	return out
}

func TestMetadata(t *testing.T) {
	tree := mustMerge(t,
		layer(t,
			d("./").mode(0o711).owner(1, 2),
			f("suid", "x").mode(0o6755).owner(70000, 4294967294).at(someTime).xattr("security.capability", "cap").xattr("user.b", "2").xattr("user.a", "1"),
			f("file", "x").xattr("user.keep", "1").xattr("user.over", "1"),
			d("dir").mode(0o1777).xattr("user.old", "1"),
			s("link", "x").owner(3, 4).at(someTime),
			f("selinux", "").xattr("security.selinux", "ctx")),
		layer(t,
			h("hard", "file").mode(0o600).owner(5, 6).xattr("user.over", "2"),
			d("dir").mode(0o700).xattr("user.new", "1"),
			f("implied/x", "")))
	for path, want := range map[string]string{
		"/":        "directory 711 1:2 0.0",
		"/suid":    "regular file 6755 70000:4294967294 1234567890.987654321 security.capability=cap user.a=1 user.b=2",
		"/file":    "regular file 600 5:6 0.0 user.keep=1 user.over=2",
		"/dir":     "directory 700 0:0 0.0 user.new=1",
		"/link":    "symlink 777 3:4 1234567890.987654321",
		"/selinux": "regular file 644 0:0 0.0",
		"/implied": "directory 755 0:0 0.0",
		"/none":    "absent",
	} {
		if got := describe(tree.Lookup(path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if n := tree.Lookup("/hard"); tree.Nodes() == nil || n.Links != 2 || n != tree.Lookup("/file") {
		t.Errorf("hard link: got %d links", n.Links)
	}
}

// A directory that a whiteout hides, but that lives on because of what its own
// layer puts there, must not keep the hidden one's owner and mode.
func TestHiddenDirectoryLosesMetadata(t *testing.T) {
	lower := layer(t, d("a").mode(0o777).owner(9, 9).xattr("user.x", "1"), f("a/old", ""))
	for _, upper := range [][]ent{
		{f(".wh.a", ""), f("a/new", "")},
		{f("a/new", ""), f(".wh.a", "")},
	} {
		got := describe(mustMerge(t, lower, layer(t, upper...)).Lookup("/a"))
		if want := "directory 755 0:0 0.0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	tree := mustMerge(t, layer(t, f("a", "").xattr("com.apple.x", "1"), s("l", "a").xattr("user.x", "1"), f("ok", "").xattr("user.x", "1")))
	got := strings.Join(tree.Warnings(), "\n")
	for _, want := range []string{`layer 1: "a": leaving out attribute "com.apple.x"`, `"l": leaving out attribute "user.x"`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if strings.Contains(got, "ok") || describe(tree.Lookup("l")) != "symlink 777 0:0 0.0" {
		t.Errorf("got %s; %s", got, describe(tree.Lookup("l")))
	}
}

func TestClampTime(t *testing.T) {
	tree := mustMerge(t, layer(t, f("late", "").at(someTime), f("early", "").at(time.Unix(5, 6))))
	tree.ClampTime(time.Unix(100, 7))
	for path, want := range map[string]time.Time{"/late": time.Unix(100, 7), "/early": time.Unix(5, 6)} {
		if got := tree.Lookup(path).ModTime(); !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}

func TestAddFile(t *testing.T) {
	base := []ent{f("target", "old"), s("conf", "target"), d("sub"), f("sub/x", "1"), s("etc", "/sub"), d("dir")}
	tree := mustMerge(t, layer(t, base...))
	for _, p := range []string{"/conf", "/sub/x", "dir", "/new"} {
		if err := tree.AddFile(p, 0o400, 1, 2, []byte("gen")); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := list(t, tree), "/conf:gen /dir:gen /etc->/sub /new:gen /sub/ /sub/x:gen /target:old"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := describe(tree.Lookup("/conf")), "regular file 400 1:2 0.0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, p := range []string{"/", "/etc/x", "/missing/x", "/target/x", "/" + strings.Repeat("n", 256)} {
		if err := tree.AddFile(p, 0o400, 0, 0, nil); err == nil {
			t.Errorf("%s: accepted", p)
		}
	}
	if err := tree.AddFile("/x", 0o10000, 0, 0, nil); err == nil {
		t.Error("mode with a type bit: accepted")
	}
}

func TestEnsureDir(t *testing.T) {
	tree := mustMerge(t, layer(t, d("proc").mode(0o500), s("run", "/target"), f("sys", "x"), f("target/keep", "1")))
	for _, p := range []string{"/proc", "/run", "/sys", "/tmp"} {
		if err := tree.EnsureDir(p, 0o1777); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"/proc": "directory 500 0:0 0.0", "/run": "directory 1777 0:0 0.0", "/sys": "directory 1777 0:0 0.0", "/tmp": "directory 1777 0:0 0.0"} {
		if got := describe(tree.Lookup(path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if got, want := list(t, tree), "/proc/ /run/ /sys/ /target/ /target/keep:1 /tmp/"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
