package tests

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/btrfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// TestWritableRoot measures, on this machine's own kernel and not under emulation,
// what BTRFS takes to make a read-only image writable, as the agent does it: the
// seed mounted, a second device added, made writable, written. It is BTRFS's part
// alone, on loop devices: without dm-crypt, dm-integrity, and the 4 MiB of journal
// that an unused scratch area gets.
func TestWritableRoot(t *testing.T) {
	if os.Getenv("CCRUN_BENCH") == "" {
		t.Skip("CCRUN_BENCH=1 measures")
	}
	if systems, _ := os.ReadFile("/proc/filesystems"); os.Getuid() != 0 || !strings.Contains(string(systems), "btrfs") {
		t.Skip("needs root and a kernel with BTRFS")
	}
	for _, mib := range []int{20, 600} {
		dir, root := t.TempDir(), t.TempDir()
		seed := loopDevice(t, seedImage(t, filepath.Join(dir, "seed"), mib), true)
		var fresh, again []time.Duration
		for i := range 9 {
			path := filepath.Join(dir, fmt.Sprint("scratch", i))
			write(t, path, nil)
			truncate(t, path, 8<<30)
			scratch := loopDevice(t, path, false)
			detach := func() { _ = exec.Command(systemTool(t, "losetup"), "--detach", scratch).Run() }
			fresh = append(fresh, timed(t, func() error { return sprout(seed, scratch, root) }, root))
			again = append(again, timed(t, func() error {
				return errors.Join(control(0x50009404, seed), unix.Mount(scratch, root, "btrfs", unix.MS_NODEV, ""))
			}, root))
			detach()
		}
		slices.Sort(fresh)
		slices.Sort(again)
		t.Logf("image of %d MiB: first start %v (median of 9, best %v), later starts %v", mib, fresh[4], fresh[0], again[4])
	}
}

// timed does it, and undoes the mount that it leaves.
func timed(t *testing.T, do func() error, dir string) time.Duration {
	t.Helper()
	start := time.Now()
	err := do()
	took := time.Since(start)
	if err := errors.Join(err, unix.Unmount(dir, 0), control(0x50009405, "")); err != nil {
		t.Fatal(err)
	}
	return took
}

func sprout(seed, scratch, dir string) error {
	if err := unix.Mount(seed, dir, "btrfs", unix.MS_NODEV|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mounting the seed: %w", err)
	}
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := deviceIoctl(root, 0x5000940a, scratch); err != nil {
		return fmt.Errorf("adding a device: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("making the root writable: %w", err)
	}
	return unix.Syncfs(int(root.Fd()))
}

// control asks the kernel's control device, which has the same number everywhere
// (Documentation/admin-guide/devices.txt), and in a container's /dev often no name.
func control(request uintptr, device string) error {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	node := filepath.Join(dir, "btrfs-control")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 234))); err != nil {
		return err
	}
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return deviceIoctl(f, request, device)
}

// deviceIoctl is one of linux/btrfs.h's with a struct btrfs_ioctl_vol_args.
func deviceIoctl(f *os.File, request uintptr, device string) error {
	var args struct {
		fd   int64
		name [4088]byte
	}
	copy(args.name[:], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&args)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

func loopDevice(t *testing.T, path string, readOnly bool) string {
	t.Helper()
	args := []string{"--find", "--show", path}
	if readOnly {
		args = append(args, "--read-only")
	}
	out, err := exec.Command(systemTool(t, "losetup"), args...).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command(systemTool(t, "losetup"), "--detach", device).Run() })
	return device
}

// seedImage writes an image of files of 1 MiB.
func seedImage(t *testing.T, path string, mib int) string {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	content := bytes.Repeat([]byte("content "), 1<<17)
	for i := range mib {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("f", i), Size: int64(len(content)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	fs, err := btrfs.Plan(rootfstest.Tree(t, rootfstest.Layer(layer.Bytes())), btrfs.Options{UUID: [16]byte{byte(mib), 1}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fs.WriteTo(t.Context(), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}
