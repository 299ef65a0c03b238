package btrfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// loop makes a block device of a file, or skips where that cannot be.
func loop(t *testing.T, path string, readOnly bool) string {
	t.Helper()
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || os.Geteuid() != 0 || !strings.Contains(string(known), "\tbtrfs\n") {
		t.Skip("needs root and a kernel with BTRFS")
	}
	args := []string{"-f", "--show", path}
	if readOnly {
		args = append(args, "-r")
	}
	out, err := exec.Command(rootfstest.Tool(t, "util-linux", "losetup"), args...).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v, %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "-d", device) })
	return device
}

// mountSeed mounts an image for reading.
func mountSeed(t *testing.T, path string) (device, dir string) {
	t.Helper()
	device = loop(t, path, true)
	dir = t.TempDir()
	run(t, "mount", "-t", "btrfs", "-o", "ro,noatime", device, dir)
	t.Cleanup(func() { unmount(t, dir) })
	return device, dir
}

// unmount takes a mount away, if it is there still. A program that another test
// is just starting can hold a file of it for a moment.
func unmount(t *testing.T, dir string) {
	t.Helper()
	for range 1000 {
		switch err := unix.Unmount(dir, 0); {
		case err == nil || errors.Is(err, unix.EINVAL):
			return
		case !errors.Is(err, unix.EBUSY):
			t.Fatalf("unmounting %s: %v", dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s stays busy", dir)
}

// compare holds a mounted tree against what it was made from: the kernel sees
// every name, type, mode, owner, time, size, content, attribute, device number
// and hard link of the tree, and no other.
func compare(t *testing.T, tree *rootfs.Tree, dir string) {
	t.Helper()
	sums := contentSums(t, tree)
	inodes, names := map[*rootfs.Node]uint64{}, 0
	tree.Walk(func(p string, n *rootfs.Node) bool {
		names++
		var st unix.Stat_t
		if err := unix.Lstat(dir+p, &st); err != nil {
			t.Errorf("%s: %v", p, err)
			return true
		}
		if got, want := seen(&st), expected(n); got != want {
			t.Errorf("%s:\n got %s\nwant %s", p, got, want)
		}
		if ino, ok := inodes[n]; ok && ino != st.Ino {
			t.Errorf("%s: hard link has inode %d, not %d", p, st.Ino, ino)
		}
		inodes[n] = st.Ino
		if got, want := attributesAt(t, dir+p), attributesOf(n); got != want {
			t.Errorf("%s: attributes\n got %.300q\nwant %.300q", p, got, want)
		}
		switch n.Kind {
		case rootfs.Regular:
			if got := fileSum(t, dir+p); got != sums[n] {
				t.Errorf("%s: content differs", p)
			}
		case rootfs.Symlink:
			if target, err := os.Readlink(dir + p); target != n.Target() {
				t.Errorf("%s: target %q (%v), want %q", p, target, err, n.Target())
			}
		}
		return len(p) < 4000
	})
	found := 0
	if err := filepath.WalkDir(dir, func(string, os.DirEntry, error) error { found++; return nil }); err != nil || found != names {
		t.Errorf("found %d names, want %d (%v)", found, names, err)
	}
}

func seen(st *unix.Stat_t) string {
	device := ""
	if st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK {
		device = fmt.Sprint(unix.Major(st.Rdev), ":", unix.Minor(st.Rdev))
	}
	return fmt.Sprintf("mode %o owner %d:%d size %d links %d mtime %d.%d ctime %d.%d device %s",
		st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec, device)
}

func expected(n *rootfs.Node) string {
	size, links, device := n.Size, n.Links, ""
	switch n.Kind {
	case rootfs.Directory:
		links, size = 1, 0
		for _, e := range n.Children() {
			size += 2 * int64(len(e.Name))
		}
	case rootfs.Symlink:
		size = int64(len(n.Target()))
	case rootfs.CharDevice, rootfs.BlockDevice:
		device = fmt.Sprint(n.Major, ":", n.Minor)
	}
	at := n.ModTime()
	return fmt.Sprintf("mode %o owner %d:%d size %d links %d mtime %d.%d ctime %d.%d device %s",
		modeType[n.Kind]|uint32(n.Perm), n.UID, n.GID, size, links, at.Unix(), at.Nanosecond(), at.Unix(), at.Nanosecond(), device)
}

func attributesOf(n *rootfs.Node) string {
	var all []string
	for _, x := range n.Xattrs() {
		all = append(all, x.Name+"="+string(x.Value))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func attributesAt(t *testing.T, path string) string {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return ""
	}
	var all []string
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		k, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Errorf("%s: %s: %v", path, name, err)
			continue
		}
		all = append(all, name+"="+string(value[:k]))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func contentSums(t *testing.T, tree *rootfs.Tree) map[*rootfs.Node][32]byte {
	t.Helper()
	sums := map[*rootfs.Node][32]byte{}
	err := tree.Contents(context.Background(), func(n *rootfs.Node, r io.Reader) error {
		h := sha256.New()
		_, err := io.Copy(h, r)
		sums[n] = [32]byte(h.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func fileSum(t *testing.T, path string) (sum [32]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return sum
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return [32]byte(h.Sum(nil))
}

// sprout adds an empty device to a mounted seed, and mounts both for writing.
func sprout(t *testing.T, dir string) (device string) {
	t.Helper()
	added := filepath.Join(t.TempDir(), "added.img")
	if err := os.WriteFile(added, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(added, 1<<30); err != nil {
		t.Fatal(err)
	}
	device = loop(t, added, false)
	run(t, "btrfs", "device", "add", "-f", "-K", device, dir)
	run(t, "mount", "-o", "remount,rw", dir)
	return device
}

// TestSprout: a second device takes all that is written, the seed keeps every
// byte, and btrfs check finds both of them perfect together, before and after
// they are mounted again. At last all that is on the seed is moved away, for
// which the kernel follows every reference to it.
func TestSprout(t *testing.T) {
	var files []rootfstest.File
	for _, name := range []string{"content", "xattrs", "kinds", "big directory"} {
		files = append(files, shapes[name]...)
	}
	for name, limits := range map[string]limits{"": defaultLimits(), "small chunks": small} {
		t.Run(name, func(t *testing.T) {
			if name == "" && !long {
				t.Skip("CCRUN_LONG=1 does the same with one large chunk")
			}
			seed := imageWith(t, rootfstest.Tree(t, rootfstest.Tar(t, files)), limits)
			before := fileSum(t, seed)
			seedDevice, dir := mountSeed(t, seed)
			run(t, "btrfs", "scrub", "start", "-BRr", dir)
			device := sprout(t, dir)
			for _, step := range []func(*testing.T, string){change, changed, moveAway(seedDevice), changed} {
				step(t, dir)
				unmount(t, dir)
				if fileSum(t, seed) != before {
					t.Fatal("the seed was written to")
				}
				run(t, "btrfs", "device", "scan", seedDevice, device)
				check(t, device)
				run(t, "mount", "-t", "btrfs", "-o", "noatime", device, dir)
			}
		})
	}
}

func moveAway(seed string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { run(t, "btrfs", "device", "delete", seed, dir) }
}

// change does to the tree of TestSprout what a workload may do.
func change(t *testing.T, dir string) {
	t.Helper()
	at := time.Unix(1e9, 0)
	for name, err := range map[string]error{
		"write":   os.WriteFile(dir+"/new", bytes.Repeat([]byte("new"), 1<<20), 0o644),
		"replace": os.WriteFile(dir+"/a", []byte("short"), 0o644),
		"extend":  os.Truncate(dir+"/d", 100000),
		"punch":   os.Truncate(dir+"/c", 5<<20+77),
		"attr":    errors.Join(unix.Setxattr(dir+"/many", "user.a", []byte("other"), 0), unix.Removexattr(dir+"/many", "user.z")),
		"link":    os.Link(dir+"/suid", dir+"/acl/third"),
		"rename":  os.Rename(dir+"/fifo", dir+"/acl/fifo"),
		"remove":  errors.Join(os.Remove(dir+"/longest"), os.Remove(dir+"/b"), os.RemoveAll(dir+"/d")),
		"owner":   errors.Join(os.Chown(dir+"/null", 7, 8), os.Chmod(dir+"/null", 0o604), os.Chtimes(dir+"/null", at, at)),
	} {
		if err != nil && name != "extend" {
			t.Errorf("%s: %v", name, err)
		}
	}
	syscall.Sync()
}

func changed(t *testing.T, dir string) {
	t.Helper()
	for name, size := range map[string]int64{"new": 3 << 20, "a": 5, "c": 5<<20 + 77, "acl/third": 1} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != size {
			t.Errorf("%s: %v (%v), want %d bytes", name, info, err, size)
		}
	}
	for _, name := range []string{"longest", "b", "d", "fifo"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}
