package guest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/luks"
)

// mappedName is the device-mapper name of the opened image.
const mappedName = "ccrun"

// opened is what a boot has made of the disk, for the workload to see and for
// closing it again.
type opened struct {
	mapped   string   // path of the image's device, read-only; empty before
	devices  []string // device-mapper names to close at the end, last first
	mounts   []string // to unmount at the end, last first
	readOnly bool     // the root cannot be written
	scratch  *scratch // nil: nothing is written to the disk
	say      func(string)
}

// activateImage opens the image, of which nothing is ever written.
func (o *opened) activateImage(g luks.Geometry, vk *luks.VolumeKey, device string) (err error) {
	if o.mapped, err = luks.Activate(g, vk, luks.Place{Device: device}, mappedName, true); err == nil {
		o.devices = append(o.devices, mappedName)
	}
	return lackingCipher(err)
}

// lackingCipher names the class of what a kernel without the image's cipher says,
// and what helps. It is told as it is: nothing of the disk is known yet.
func lackingCipher(err error) error {
	if !errors.Is(err, luks.ErrNoCipher) {
		return err
	}
	return hint.With(fmt.Errorf("%s: %w", classUnsupported, err), "build the image with --cipher aes-xts, or with --firmware whose kernel has the cipher")
}

func (o *opened) mountRoot(m mount) error {
	if err := m.do(); err != nil {
		return classed(classDamaged, err)
	}
	o.mounts = append(o.mounts, m.target)
	return nil
}

// close unmounts and closes what was opened, and reports what does not go. The
// workload's mounts die with its namespace a moment after it, hence the tries.
func (o *opened) close(report func(string)) {
	unix.Sync()
	for _, dir := range slices.Backward(o.mounts) {
		if err := unix.Unmount(dir, 0); err != nil {
			report(fmt.Sprintf("unmounting %s: %v", dir, err))
			_ = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
	for _, name := range slices.Backward(o.devices) {
		if err := closeDevice(name); err != nil {
			report(fmt.Sprintf("closing %s: %v", name, err))
		}
	}
}

func closeDevice(name string) (err error) {
	for deadline := time.Now().Add(500 * time.Millisecond); ; time.Sleep(10 * time.Millisecond) {
		if err = luks.Deactivate(name); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
