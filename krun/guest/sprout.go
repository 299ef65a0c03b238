package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// A BTRFS image is a seed: a device that is never written. A second device that
// is added to the mounted seed takes all writes, and from then on names the
// seed as what it grew from (linux, Documentation: btrfs(5), "seeding device").

// openScratch prepares what the identity wants written to a disk. Without an
// area, as with podman's --read-only, the root cannot be written; an owner who
// has damaged areas refused has that refused, too.
func (o *opened) openScratch(vk *luks.VolumeKey, a area) error {
	if a.rule.Kind != krun.ScratchDisk {
		return nil
	}
	s, err := readScratch(vk, a)
	if errors.Is(err, errNoScratch) && a.rule.Damaged == krun.DamagedReplace {
		o.say("the root is read-only: " + err.Error())
		return nil
	}
	if errors.Is(err, errNoScratch) {
		err = hint.With(err, "run the image without --read-only, under a current ccrun")
	}
	o.scratch = s
	return openly(err)
}

// mountScratch goes on with the area as it is or with a new one, never with
// parts of both: each has a key of its own.
func (o *opened) mountScratch(damaged string) error {
	s := o.scratch
	if s.kept != nil {
		if s.damaged = o.mountKept(); s.damaged == nil {
			return nil
		}
		_ = btrfsControl(btrfsForgetDevice, "")
	}
	if s.damaged != nil {
		if damaged != krun.DamagedReplace {
			return openly(hint.With(fmt.Errorf("opening the scratch area: %w", s.damaged),
				"try once more; if it stays so, remove the container, which loses what it wrote, and start another"))
		}
		o.say("a new, empty scratch area takes the place of one that does not open: " + s.damaged.Error())
	}
	return o.mountFresh()
}

// mountKept mounts an area that has a seed already.
func (o *opened) mountKept() error {
	s := o.scratch
	device, err := luks.Activate(s.geometry, s.kept, s.place, scratchName, false)
	if err != nil {
		return err
	}
	o.devices = append(o.devices, scratchName)
	if err = btrfsControl(btrfsScanDevice, o.mapped); err == nil {
		err = mount{device, newRoot, "btrfs", unix.MS_NODEV, ""}.do()
	}
	if err == nil {
		o.mounts = append(o.mounts, newRoot)
		return nil
	}
	if e := luks.Deactivate(scratchName); e != nil {
		return errors.Join(err, e)
	}
	o.devices = o.devices[:len(o.devices)-1]
	return err
}

// mountFresh lets the area begin anew. The header comes last: until then nothing
// of it counts, and a guest that is killed here leaves an unused area, or one
// that is replaced again.
func (o *opened) mountFresh() error {
	s := o.scratch
	if err := s.writeEmpty(); err != nil {
		return err
	}
	device, err := luks.Activate(s.geometry, s.fresh, s.place, scratchName, false)
	if err != nil {
		return err
	}
	o.devices = append(o.devices, scratchName)
	if err := o.sprout(device, ""); err != nil {
		return err
	}
	if err := syncFilesystem(newRoot); err != nil {
		return err
	}
	return s.commit()
}

// sprout mounts the image and has device take all writes.
func (o *opened) sprout(device, options string) error {
	if err := o.mountRoot(mount{o.mapped, newRoot, "btrfs", unix.MS_NODEV | unix.MS_RDONLY, ""}); err != nil {
		return err
	}
	if err := addDevice(newRoot, device); err != nil {
		return fmt.Errorf("adding scratch to the root: %w", err)
	}
	if err := unix.Mount("", newRoot, "", unix.MS_REMOUNT|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("making the root writable: %w", err)
	}
	return nil
}

func addDevice(root, device string) error {
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return btrfsIoctl(f, btrfsAddDevice, device)
}

func syncFilesystem(root string) error {
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("writing the root: %w", err)
	}
	return nil
}

// Requests of linux/btrfs.h, each with a struct btrfs_ioctl_vol_args.
const (
	btrfsAddDevice    = 0x5000940a // BTRFS_IOC_ADD_DEV, of a mounted file system
	btrfsScanDevice   = 0x50009404 // BTRFS_IOC_SCAN_DEV, of the control device
	btrfsForgetDevice = 0x50009405 // BTRFS_IOC_FORGET_DEV; without a name: all that are not mounted
)

// btrfsControl tells the kernel of a device that a mount will need. The mount
// option device= does not do: it opens even a seed for writing.
func btrfsControl(request uintptr, device string) error {
	f, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return btrfsIoctl(f, request, device)
}

func btrfsIoctl(f *os.File, request uintptr, device string) error {
	var args struct { // btrfs_ioctl_vol_args
		fd   int64
		name [4088]byte
	}
	if len(device) >= len(args.name) || bytes.IndexByte([]byte(device), 0) >= 0 {
		return fmt.Errorf("device name %.40q is too long or has a NUL", device)
	}
	copy(args.name[:], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&args)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}
