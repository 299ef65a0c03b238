package sim

import (
	"errors"
	"fmt"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"golang.org/x/sys/unix"
)

// boot is everything that decides what a machine executes first.
type boot struct {
	inputs measure.Inputs // the initrd is modules ‖ agent segment ‖ identity segment
	shape  measure.Shape
}

// digest is the launch digest: what `ccrun build` predicted for these bytes.
func (b *boot) digest() (kbs.LaunchDigest, error) {
	r, err := measure.Launch(measure.QEMUDirect, b.inputs, b.shape)
	if err != nil {
		return kbs.LaunchDigest{}, fmt.Errorf("measuring the boot: %w", err)
	}
	return r.Digest, nil
}

// loadBoot reads firmware and image, each file once.
func loadBoot(root *os.Root, firmwareDir string) (*boot, error) {
	config, err := readTEEConfig(root)
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
	inputs, err := measure.FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	inputs.AllowACPI = true // for the guest and its owner to refuse, not for a host
	return &boot{inputs: inputs, shape: measure.Shape{CPUs: uint(config.CPUs), MemoryMiB: config.MemoryMiB}}, nil
}

// sealed puts b into a memory file that nobody, ourselves included, can
// change any more: QEMU boots from it, so what was measured is what runs even
// if the host rewrites its files in between.
func sealed(name string, b []byte) (*os.File, error) {
	f, err := memoryFile(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(fmt.Errorf("filling memory file for %s: %w", name, err), f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("sealing memory file for %s: %w", name, err), f.Close())
	}
	return f, nil
}

func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("creating memory file for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
