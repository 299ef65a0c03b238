package sim

import (
	"errors"
	"fmt"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"golang.org/x/sys/unix"
)

// Boot is everything that decides what a machine executes first: what the
// launch digest covers.
type Boot struct {
	Kernel    []byte // bzImage
	Initrd    []byte // firmware's modules ‖ agent segment ‖ identity segment
	Cmdline   string
	CPUs      uint
	MemoryMiB uint
}

// Measurer computes the launch digest of a Boot.
type Measurer func(Boot) (kbs.LaunchDigest, error)

// loadBoot reads firmware and image, each file once.
func loadBoot(root *os.Root, firmwareDir string) (*Boot, error) {
	shape, err := readTEEConfig(root)
	if err != nil {
		return nil, err
	}
	initrd, err := readRegular(root, krun.InitrdFile, maxInitrdBytes)
	if err != nil {
		return nil, err
	}
	fw, err := firmware.Load(firmwareDir)
	if err != nil {
		return nil, err
	}
	if fw.Kind != firmware.KindQEMUDirect {
		return nil, fmt.Errorf("firmware %s is of kind %q, expected %q", firmwareDir, fw.Kind, firmware.KindQEMUDirect)
	}
	all, err := fw.BootInitrd(initrd)
	if err != nil {
		return nil, err
	}
	return &Boot{Kernel: fw.Kernel, Initrd: all, Cmdline: fw.Cmdline,
		CPUs: uint(shape.CPUs), MemoryMiB: shape.MemoryMiB}, nil
}

// sealed puts b into a memory file that nobody, ourselves included, can
// change any more: QEMU boots from it, so what was measured is what runs even
// if the host rewrites its files in between.
func sealed(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("creating memory file for %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(fmt.Errorf("filling memory file for %s: %w", name, err), f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("sealing memory file for %s: %w", name, err), f.Close())
	}
	return f, nil
}
