package erofs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	goerofs "github.com/erofs/go-erofs"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

var shapes = map[string][]rootfstest.File{
	"empty": nil,
	"small": {rootfstest.Dir("etc"), rootfstest.Regular("etc/hostname", []byte("box\n")), rootfstest.Symlink("bin", "usr/bin"), rootfstest.Regular("!before-dots", nil), rootfstest.Regular("-", []byte("x"))},
	"kinds": append(rootfstest.Kinds(), rootfstest.Symlink("short", "a"), rootfstest.Symlink("long", strings.Repeat("b", 1000)),
		rootfstest.Symlink("longest", strings.Repeat("c", 4095))),
	"xattrs": {
		rootfstest.WithXattrs(rootfstest.Regular("cap", []byte("x")), "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		rootfstest.WithXattrs(rootfstest.Regular("many", []byte("tail")), "user.a", strings.Repeat("v", 200), "user.b", "", "user.ccc", "x", "trusted.t", "yy", "user.z", strings.Repeat("w", 30000)),
		rootfstest.WithXattrs(rootfstest.Dir("d"), "user.x", strings.Repeat("q", 4000)), rootfstest.Regular("d/f", []byte("in d")),
		rootfstest.WithXattrs(rootfstest.Symlink("sl", "x"), "trusted.x", strings.Repeat("q", 500)), rootfstest.Regular("after", []byte("y")),
	},
	"tails": tails(),
	"big":   append(rootfstest.Many("d", 5000, 20), append(rootfstest.Many("e", 300, 255), rootfstest.Regular("c", bytes.Repeat([]byte("zy"), 3<<20)), rootfstest.Regular("end", []byte("e")))...),
}

// tails are files of every size near a block's end.
func tails() (out []rootfstest.File) {
	for _, base := range []int{0, 4096, 8192} {
		for _, n := range []int{0, 1, 31, 32, 33, 1000, 4000, 4031, 4032, 4033, 4095} {
			out = append(out, rootfstest.Regular(fmt.Sprint("f", base+n), bytes.Repeat([]byte{byte(n), 7}, base+n)[:base+n]))
		}
	}
	return out
}

func TestShapes(t *testing.T) {
	for name, files := range shapes {
		t.Run(name, func(t *testing.T) {
			tree := rootfstest.Tree(t, rootfstest.Tar(t, files))
			img := image(t, tree)
			run(t, "fsck.erofs", save(t, img))
			readBack(t, tree, img)
		})
	}
}

func TestRandomTrees(t *testing.T) {
	variety := rootfstest.Variety{Latest: 1 << 31, SizeBits: 18, XattrBits: 13, Namespaces: []string{"trusted."}}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 2))
			tree := rootfstest.Tree(t, rootfstest.Tar(t, variety.Random(r)), rootfstest.Tar(t, variety.Random(r)))
			img := image(t, tree)
			path := save(t, img)
			run(t, "fsck.erofs", path)
			readBack(t, tree, img)
			extract(t, tree, path)
		})
	}
}

func contents(t testing.TB, tree *rootfs.Tree) map[*rootfs.Node][]byte {
	t.Helper()
	out := map[*rootfs.Node][]byte{}
	err := tree.Contents(context.Background(), func(n *rootfs.Node, r io.Reader) (err error) {
		out[n], err = io.ReadAll(r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// readBack compares the image with the tree through go-erofs, an independent
// reader: everything but the number of entries, which fsck covers.
func readBack(t *testing.T, tree *rootfs.Tree, img []byte) {
	t.Helper()
	fsys, err := goerofs.Open(bytes.NewReader(img))
	if err != nil {
		t.Fatal(err)
	}
	text := contents(t, tree)
	tree.Walk(func(p string, n *rootfs.Node) bool {
		name := strings.TrimPrefix(p, "/")
		if name == "" {
			name = "."
		}
		var info os.FileInfo
		if info, err = fsys.(interface {
			Lstat(string) (os.FileInfo, error)
		}).Lstat(name); err != nil {
			t.Errorf("%s: %v", p, err)
			return false
		}
		st := info.Sys().(*goerofs.Stat)
		got := fmt.Sprint(st.UID, " ", st.GID, " ", st.Mtime, ".", st.MtimeNs, " ", uint16(info.Mode().Perm()), " ", len(st.Xattrs))
		want := fmt.Sprint(n.UID, " ", n.GID, " ", uint64(n.ModTime().Unix()), ".", n.ModTime().Nanosecond(), " ", n.Perm&0o777, " ", len(n.Xattrs()))
		if got != want {
			t.Errorf("%s: got %s, want %s", p, got, want)
		}
		if n.Kind != rootfs.Directory && uint32(st.Nlink) != n.Links {
			t.Errorf("%s: got %d links, want %d", p, st.Nlink, n.Links)
		}
		for _, x := range n.Xattrs() {
			if v, ok := st.Xattrs[x.Name]; !ok || v != string(x.Value) {
				t.Errorf("%s: attribute %s: got %q, want %q", p, x.Name, v, x.Value)
			}
		}
		if n.Kind == rootfs.Regular {
			f, err := fsys.Open(name)
			if err != nil {
				t.Errorf("%s: %v", p, err)
				return false
			}
			b, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(b, text[n]) {
				t.Errorf("%s: content differs, %v", p, err)
			}
		}
		return true
	})
}

// extract compares what fsck.erofs unpacks with the tree.
func extract(t *testing.T, tree *rootfs.Tree, img string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	root := os.Getuid() == 0
	run(t, "fsck.erofs", "--extract="+out, map[bool]string{true: "--preserve", false: "--no-preserve"}[root], img)
	text := contents(t, tree)
	names := 0
	tree.Walk(func(p string, n *rootfs.Node) bool {
		names++
		info, err := os.Lstat(out + p)
		if err != nil {
			if !root && n.Kind >= rootfs.CharDevice {
				return true
			}
			t.Errorf("%s: %v", p, err)
			return true
		}
		st := info.Sys().(*syscall.Stat_t)
		if root && (st.Uid != n.UID || st.Gid != n.GID || n.Kind != rootfs.Symlink && uint16(st.Mode&0o1777) != n.Perm&0o1777) {
			t.Errorf("%s: got %d:%d %o, want %d:%d %o", p, st.Uid, st.Gid, st.Mode, n.UID, n.GID, n.Perm)
		}
		// It sets the mode before the owner, which clears set-id bits: see TestModes.
		switch n.Kind {
		case rootfs.Regular:
			if b, err := os.ReadFile(out + p); err != nil || !bytes.Equal(b, text[n]) {
				t.Errorf("%s: content differs, %v", p, err)
			}
		case rootfs.Symlink:
			if target, err := os.Readlink(out + p); target != n.Target() {
				t.Errorf("%s: got %q, want %q, %v", p, target, n.Target(), err)
			}
		case rootfs.CharDevice:
			if want := uint64(n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12); root && st.Rdev != want {
				t.Errorf("%s: got device %x, want %x", p, st.Rdev, want)
			}
		}
		return true
	})
	found := 0
	_ = filepath.WalkDir(out, func(string, os.DirEntry, error) error { found++; return nil })
	if root && found != names {
		t.Errorf("got %d names, want %d", found, names)
	}
}

// Neither reader shows set-id bits, so this looks into the inodes.
func TestModes(t *testing.T) {
	for mode := range uint16(0o10000) {
		n := &rootfs.Node{Kind: rootfs.Regular, Perm: mode}
		b := make([]byte, inodeBytes)
		if _, err := (&Layout{}).putInode(b, &inode{node: n}); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint16(b[4:]); got != mode|syscall.S_IFREG {
			t.Fatalf("got %o, want %o", got, mode)
		}
	}
}

func TestSameInputSameBytes(t *testing.T) {
	layer := rootfstest.Tar(t, append(shapes["big"], shapes["xattrs"]...))
	first, second := sha256.Sum256(image(t, rootfstest.Tree(t, layer))), sha256.Sum256(image(t, rootfstest.Tree(t, layer)))
	if first != second {
		t.Error("two builds differ")
	}
}

func TestSuperblock(t *testing.T) {
	out := run(t, "dump.erofs", "-s", save(t, image(t, rootfstest.Tree(t, rootfstest.Tar(t, shapes["small"])))))
	for _, want := range []string{"0xE0F5E1E2", "sb_csum mtime", "cc010203-0405-0607-0809-0a0b0c0d0e0f", "Filesystem inode count:                       6"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
}

// The content is nearly all there is; tails that do not fit together waste a
// few hundred bytes a file.
func TestSize(t *testing.T) {
	var files []rootfstest.File
	var sum int
	for i := range 2000 {
		n := i * i % 50000
		sum += n
		files = append(files, rootfstest.Regular(fmt.Sprint(i), make([]byte, n)))
	}
	if got := len(image(t, rootfstest.Tree(t, rootfstest.Tar(t, files)))); got > sum+sum/25 {
		t.Errorf("%d bytes of content take %d", sum, got)
	}
}

func TestPlanRefuses(t *testing.T) {
	ok := rootfstest.Tree(t, rootfstest.Tar(t, shapes["small"]))
	acl := rootfstest.Tree(t, rootfstest.Tar(t, []rootfstest.File{rootfstest.WithXattrs(rootfstest.Regular("f", nil), "system.posix_acl_access", "nonsense")}))
	if _, err := Plan(acl, Options{UUID: testUUID}); err == nil || !strings.Contains(err.Error(), `"/f": attribute "system.posix_acl_access": not a POSIX ACL`) {
		t.Errorf("got %v, want an error about the ACL", err)
	}
	for want, o := range map[string]Options{"UUID": {}, "label": {UUID: testUUID, Label: strings.Repeat("l", 16)}} {
		if _, err := Plan(ok, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestSourceChanged(t *testing.T) { rootfstest.Plan(planned).SourceChanged(t) }

func TestWriteErrors(t *testing.T) { rootfstest.Plan(planned).WriteErrors(t, shapes["big"], 3<<20) }
