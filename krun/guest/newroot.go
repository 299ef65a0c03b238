package guest

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

// mount mounts the image at newRoot, and where its guests write.
func (o *opened) mount(filesystem string, s krun.Scratch) error {
	if !slices.Contains(krun.Filesystems(), filesystem) {
		return fmt.Errorf("file system %q, expected one of %v", filesystem, krun.Filesystems())
	}
	if err := checkReadOnly(o.mapped); err != nil {
		return err
	}
	if filesystem == "btrfs" {
		return o.mountBtrfs(s)
	}
	return o.mountLayered(filesystem, s.Kind)
}

// mountBtrfs mounts a seed, and with scratch what grows from it.
func (o *opened) mountBtrfs(rule krun.Scratch) error {
	switch {
	case rule.Kind == krun.ScratchMemory:
		return o.sproutInMemory()
	case o.scratch == nil:
		o.readOnly = true
		return o.mountRoot(mount{o.mapped, newRoot, "btrfs", unix.MS_NODEV | unix.MS_RDONLY, ""})
	}
	defer o.scratch.wipe()
	return o.mountScratch(rule.Damaged)
}

// checkReadOnly: the image's device takes no write, whatever asks.
func checkReadOnly(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	ro, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("asking whether %s is read-only: %w", device, err)
	}
	if ro != 1 {
		return fmt.Errorf("%s can be written, expected a read-only device", device)
	}
	return nil
}
