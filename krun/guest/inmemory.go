package guest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

const (
	// memoryDir holds what is written in memory: of a BTRFS image a file that a
	// loop device makes a disk of, of others the layers of an overlay.
	memoryDir = "/run/ccrun"
	// memoryShare of the guest's memory may be filled by the workload's writes.
	memoryShare = 2
	loopBlock   = 4096
)

// sproutInMemory has a BTRFS image write to a loop device over a file in memory:
// the one kind of a disk in memory that libkrunfw's kernels have. What the
// workload deletes is given back (discard).
func (o *opened) sproutInMemory() error {
	device, err := memoryDisk()
	if err != nil {
		return fmt.Errorf("making a disk in memory: %w", err)
	}
	return o.sprout(device, "discard=async")
}

func memoryDisk() (device string, err error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "", err
	}
	size := int64(info.Totalram) * int64(info.Unit) / memoryShare / loopBlock * loopBlock
	if err := (mount{"tmpfs", memoryDir, "tmpfs", noExec, fmt.Sprintf("mode=700,size=%d", size+loopBlock)}).do(); err != nil {
		return "", err
	}
	f, err := os.OpenFile(memoryDir+"/scratch", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // the loop device keeps it
	if err := f.Truncate(size); err != nil {
		return "", err
	}
	return loopDevice(f)
}

func loopDevice(f *os.File) (string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = control.Close() }()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", fmt.Errorf("finding a free loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	loop, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = loop.Close() }()
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(f.Fd()), Size: loopBlock}); err != nil {
		return "", fmt.Errorf("setting up %s: %w", path, err)
	}
	return path, nil
}

// mountLayered mounts a disk that cannot be written, and a writable layer in
// memory over it where the kernel has overlayfs.
func (o *opened) mountLayered(fstype string, kind krun.ScratchKind) error {
	if kind == krun.ScratchNone || !hasFilesystem("overlay") {
		o.readOnly = true
		return o.mountRoot(mount{o.mapped, newRoot, fstype, unix.MS_NODEV | unix.MS_RDONLY, ""})
	}
	lower, upper, work := memoryDir+"/lower", memoryDir+"/upper", memoryDir+"/work"
	if err := o.mountRoot(mount{o.mapped, lower, fstype, unix.MS_NODEV | unix.MS_RDONLY, ""}); err != nil {
		return err
	}
	err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755))
	if err != nil {
		return err
	}
	return o.mountRoot(mount{"overlay", newRoot, "overlay", unix.MS_NODEV, "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work})
}
