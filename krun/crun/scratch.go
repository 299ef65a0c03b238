package crun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// AddScratch makes disk.img in the container's root file system as long as its
// image wants it at a launch (krun.Hints.DiskBytes): sparse, and it never takes
// anything away, so a container that starts again finds what it wrote. A
// container with --read-only gets nothing, from which the guest knows.
//
// The file is the container's own: writing to it is what makes overlayfs copy it
// up, which libkrun's opening it for writing would do in any case.
func (s *Spec) AddScratch(diskBytes int64) (err error) {
	if diskBytes == 0 || s.Root.Readonly {
		return nil
	}
	root, err := os.OpenRoot(s.RootFS)
	if err != nil {
		return fmt.Errorf("adding scratch: %w", err)
	}
	defer root.Close()
	before, err := root.Lstat(krun.DiskFile)
	if err != nil {
		return fmt.Errorf("adding scratch: %w", err)
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("adding scratch: /%s is not a regular file", krun.DiskFile)
	}
	if before.Size() >= diskBytes {
		return nil
	}
	f, err := root.OpenFile(krun.DiskFile, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("adding scratch: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > diskBytes {
		return errors.Join(fmt.Errorf("adding scratch: /%s is not the file it was", krun.DiskFile), err)
	}
	if err := f.Truncate(diskBytes); err != nil {
		return hint.With(fmt.Errorf("adding scratch: making /%s %d bytes long: %w", krun.DiskFile, diskBytes, err),
			"keep containers on a file system that takes files of that length, or build the image with a smaller --scratch")
	}
	return nil
}
