package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/archive"
)

// TestLikeContainersStorage applies random layers with containers/storage's own
// UnpackLayer and compares. Whatever it accepts, Merge must accept with the
// same result. Whiteouts name what exists and stand first in their layer, as
// tools write them: elsewhere UnpackLayer depends on the order, and Merge
// follows the image specification. Links are relative, as UnpackLayer is not
// chrooted here.
func TestLikeContainersStorage(t *testing.T) {
	accepted := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		var layers []*memLayer
		for i := range 1 + r.IntN(4) {
			layers = append(layers, layer(t, append(randomWhiteout(t, r, layers), randomLayer(r, i)...)...))
		}
		want, err := unpack(t, layers)
		if err != nil {
			continue
		}
		accepted++
		tree, err := merge(t, layers...)
		if err != nil {
			t.Errorf("seed %d: %v; containers/storage made\n%s", seed, err, want)
			continue
		}
		if got := treeListing(t, tree); got != want {
			t.Errorf("seed %d: got\n%s\nwant\n%s", seed, got, want)
		}
		if t.Failed() {
			return
		}
	}
	if accepted < 50 {
		t.Errorf("only %d sets of layers were accepted: the test tests nothing", accepted)
	}
}

// randomLayer uses few names, so that layers get into each other's way. One
// time for all: UnpackLayer dates a file that replaced a directory of the same
// layer like the directory.
func randomLayer(r *rand.Rand, n int) (out []ent) {
	names := []string{"a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/b/c", "b/c/a", "c/a/b"}
	pick := func() string { return names[r.IntN(len(names))] }
	for i := range r.IntN(8) {
		var e ent
		switch p := pick(); r.IntN(8) {
		case 0, 1, 2:
			e = d(p)
		case 3:
			e = s(p, []string{"a", "b", "c"}[r.IntN(3)])
		case 4:
			e = h(p, pick())
		default:
			e = f(p, fmt.Sprint(n, i))
		}
		e = e.owner(os.Getuid(), os.Getgid()).mode([]int64{0o755, 0o700, 0o4711}[r.IntN(3)]).at(time.Unix(int64(1000*n), 0))
		if e.Typeflag == tar.TypeReg && r.IntN(3) == 0 {
			e = e.xattr("user.x", fmt.Sprint(n, i))
		}
		out = append(out, e)
	}
	return out
}

// randomWhiteout hides something that the layers so far hold, if they can be
// merged at all. UnpackLayer would make the parents of a whiteout of nothing.
func randomWhiteout(t *testing.T, r *rand.Rand, layers []*memLayer) []ent {
	tree, err := merge(t, layers...)
	if err != nil {
		return nil
	}
	var choices []ent
	tree.Walk(func(p string, n *Node) bool {
		if p != "/" {
			choices = append(choices, f(filepath.Dir(p)+"/.wh."+filepath.Base(p), ""))
		}
		if n.Kind == Directory {
			choices = append(choices, f(p+"/.wh..wh..opq", ""))
		}
		return true
	})
	if r.IntN(4) == 0 {
		return nil
	}
	return []ent{choices[r.IntN(len(choices))]}
}

func unpack(t *testing.T, layers []*memLayer) (string, error) {
	dest := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(dest, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dest) // UnpackLayer looks hard links up from "/", where a chroot would put it
	for _, l := range layers {
		if _, err := archive.UnpackLayer(dest, bytes.NewReader(l.data), &archive.TarOptions{}); err != nil {
			return "", err
		}
	}
	var out []string
	inodes := map[string][]string{}
	err := filepath.WalkDir(dest, func(p string, de fs.DirEntry, err error) error {
		if err != nil || p == dest {
			return err
		}
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, dest)
		line := fmt.Sprintf("%s %s", name, info.Mode())
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q %d", b, info.ModTime().Unix())
		}
		key := inodeKey(info)
		inodes[key] = append(inodes[key], name)
		out = append(out, line)
		return nil
	})
	return listing(out, inodes), err
}

func listing(lines []string, inodes map[string][]string) string {
	for _, names := range inodes {
		if len(names) > 1 {
			sort.Strings(names)
			lines = append(lines, "linked "+strings.Join(names, " "))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func treeListing(t *testing.T, tree *Tree) string {
	text := contents(t, tree)
	tree.Nodes()
	var out []string
	inodes := map[string][]string{}
	tree.Walk(func(p string, n *Node) bool {
		if p == "/" {
			return true
		}
		mode := fs.FileMode(n.Perm & 0o777)
		if n.Perm&0o4000 != 0 {
			mode |= fs.ModeSetuid
		}
		line := ""
		switch n.Kind {
		case Directory:
			line = fmt.Sprintf("%s %s", p, mode|fs.ModeDir)
		case Symlink:
			line = fmt.Sprintf("%s %s -> %s", p, mode|fs.ModeSymlink, n.Target())
		default:
			line = fmt.Sprintf("%s %s %q %d", p, mode, text[n], n.ModTime().Unix())
		}
		key := fmt.Sprint(n.Index())
		inodes[key] = append(inodes[key], p)
		out = append(out, line)
		return true
	})
	return listing(out, inodes)
}
