package ext4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// verify compares an image with its tree, as debugfs reads it: names, kinds,
// modes, owners, sizes, links, times, devices, targets, attributes, contents.
func verify(t *testing.T, img string, l *Layout) {
	t.Helper()
	v := &verifier{t: t, img: img, l: l, out: t.TempDir(), sums: map[*rootfs.Node][32]byte{}}
	err := l.tree.Contents(context.Background(), func(n *rootfs.Node, r io.Reader) error {
		h := sha256.New()
		_, err := io.Copy(h, r)
		v.sums[n] = [32]byte(h.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes := l.tree.Nodes()
	var cmds []string
	for _, n := range nodes {
		ino := inoOf(l.slot(n))
		cmds = append(cmds, fmt.Sprintf("stat <%d>", ino))
		if n.Kind == rootfs.Directory {
			cmds = append(cmds, fmt.Sprintf("ls -p <%d>", ino))
		}
		if n.Kind == rootfs.Regular || n.Kind == rootfs.Symlink && len(n.Target()) >= fastSymlink {
			cmds = append(cmds, fmt.Sprintf("dump <%d> %s/%d", ino, v.out, ino))
		}
		for i, x := range n.Xattrs() {
			cmds = append(cmds, fmt.Sprintf("ea_get -f %s/%d.%d <%d> %s", v.out, ino, i, ino, x.Name))
		}
	}
	v.run(cmds)
	for _, n := range nodes {
		v.node(n)
	}
}

type verifier struct {
	t       *testing.T
	img     string
	out     string
	l       *Layout
	answers map[string]string
	sums    map[*rootfs.Node][32]byte
}

// run gives debugfs a list of commands and keeps what it said to each.
func (v *verifier) run(cmds []string) {
	script := filepath.Join(v.out, "script")
	if err := os.WriteFile(script, []byte(strings.Join(cmds, "\n")+"\n"), 0o600); err != nil {
		v.t.Fatal(err)
	}
	c := exec.Command(tool(v.t, "debugfs"), "-f", script, v.img)
	c.Env = append(os.Environ(), "TZ=UTC")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil || strings.Count(stderr.String(), "\n") > 1 {
		v.t.Fatalf("debugfs: %v\n%s", err, stderr.String())
	}
	v.answers = map[string]string{}
	for _, part := range strings.Split("\n"+string(out), "\ndebugfs: ")[1:] {
		cmd, answer, _ := strings.Cut(part, "\n")
		v.answers[cmd] = answer
	}
}

var statFields = regexp.MustCompile(`(?s)Type: ([A-Za-z ]+?) +Mode: +(\d+).*?User: +(\d+) +Group: +(\d+).*?Size: (\d+).*?Links: (\d+).* mtime: 0x([0-9a-f]+):([0-9a-f]+)`)

var statKinds = map[rootfs.Kind]string{rootfs.Regular: "regular", rootfs.Directory: "directory", rootfs.Symlink: "symlink",
	rootfs.CharDevice: "character special", rootfs.BlockDevice: "block special", rootfs.FIFO: "FIFO"}

func (v *verifier) node(n *rootfs.Node) {
	ino := inoOf(v.l.slot(n))
	stat := v.answers[fmt.Sprintf("stat <%d>", ino)]
	m := statFields.FindStringSubmatch(stat)
	if m == nil {
		v.t.Fatalf("inode %d: cannot read %q", ino, stat)
	}
	lo, _ := strconv.ParseUint(m[7], 16, 32)
	extra, _ := strconv.ParseUint(m[8], 16, 32)
	sec := int64(int32(lo)) + int64(extra&3)<<32
	got := fmt.Sprint(m[1], " ", m[2], " ", m[3], ":", m[4], " links ", m[6], " ", sec, ".", extra>>2)
	links := n.Links
	if n.Kind == rootfs.Directory {
		links = 2
		for _, e := range v.l.children(n) {
			if e.Node.Kind == rootfs.Directory {
				links++
			}
		}
	}
	want := fmt.Sprint(statKinds[n.Kind], " ", fmt.Sprintf("0%03o", n.Perm), " ", n.UID, ":", n.GID, " links ", links, " ",
		n.ModTime().Unix(), ".", n.ModTime().Nanosecond())
	if got != want {
		v.t.Errorf("inode %d: got %s, want %s", ino, got, want)
	}
	v.content(n, ino, stat, m[5])
	for i, x := range n.Xattrs() {
		value, err := os.ReadFile(fmt.Sprintf("%s/%d.%d", v.out, ino, i))
		if err != nil || !bytes.Equal(value, x.Value) {
			v.t.Errorf("inode %d: attribute %s: got %q, %v; want %q", ino, x.Name, value, err, x.Value)
		}
	}
	if n := strings.Count(stat, " = "); len(statXattrs(stat)) != len(v.l.nodeXattrs(ino)) {
		v.t.Errorf("inode %d: %d attributes in %s", ino, n, stat)
	}
}

var statXattr = regexp.MustCompile(`(?m)^  (\S+) \(\d+\)`)

func statXattrs(stat string) [][]string { return statXattr.FindAllStringSubmatch(stat, -1) }

func (l *Layout) nodeXattrs(ino uint32) []rootfs.Xattr {
	for slot := range l.inodes {
		if inoOf(int32(slot)) == ino {
			return l.inodes[slot].node.Xattrs()
		}
	}
	return nil
}

func (v *verifier) content(n *rootfs.Node, ino uint32, stat, size string) {
	dumped, _ := os.ReadFile(fmt.Sprintf("%s/%d", v.out, ino))
	var ok bool
	switch n.Kind {
	case rootfs.Regular:
		ok = size == fmt.Sprint(n.Size) && sha256.Sum256(dumped) == v.sums[n]
	case rootfs.Symlink:
		ok = strings.Contains(stat, `Fast link dest: "`+n.Target()+`"`) || string(dumped) == n.Target()
	case rootfs.CharDevice, rootfs.BlockDevice:
		ok = strings.Contains(stat, fmt.Sprintf("Device major/minor number: %02d:%02d ", n.Major, n.Minor))
	case rootfs.Directory:
		ok = v.names(ino) == v.wantNames(n)
	case rootfs.FIFO:
		ok = true
	}
	if !ok {
		v.t.Errorf("inode %d (%s): content differs\n%s", ino, n.Kind, stat)
	}
}

// names are a directory's as debugfs lists it: /ino/mode/uid/gid/name/size/.
func (v *verifier) names(ino uint32) string {
	var out []string
	for _, line := range strings.Split(v.answers[fmt.Sprintf("ls -p <%d>", ino)], "\n") {
		if f := strings.Split(line, "/"); len(f) > 5 && f[5] != "." && f[5] != ".." && f[1] != "0" {
			out = append(out, f[1]+"="+f[5])
		}
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

func (v *verifier) wantNames(n *rootfs.Node) string {
	var out []string
	for _, e := range v.l.children(n) {
		out = append(out, fmt.Sprintf("%d=%s", inoOf(v.l.slot(e.Node)), e.Name))
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}
