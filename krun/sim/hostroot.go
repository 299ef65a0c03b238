package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/hint"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostDirs are what QEMU needs of the host besides its own binary: libraries,
// its modules, boot ROMs. No other program is there, so that `podman exec`,
// which would run beside the VM and not in it, finds none to run.
var hostDirs = []string{
	"lib", "lib32", "lib64", "libx32", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32",
	"usr/share/qemu", "usr/share/seabios",
}

// makeRoot makes dir the root of the VMM's container: nothing but the host's
// own links (/lib -> usr/lib) and mount points, which crun creates. Nothing of
// the image is in it, so nothing in the image can stand in QEMU's way. It
// returns the mounts to be made.
func (r *Runtime) makeRoot(dir, config, qemu string) ([]specs.Mount, error) {
	mounts, err := r.hostMounts(dir)
	if err != nil {
		return nil, fmt.Errorf("making the VMM's root: %w", err)
	}
	fw := r.Firmware
	if fw == "" {
		fw = filepath.Join(r.Root, "firmware")
	}
	chip := filepath.Join(r.Root, sample.ChipDir)
	if _, err := sample.OpenAttester(r.Root); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(fw, "firmware.json")); err != nil {
		return nil, hint.With(fmt.Errorf("finding the simulated machine's firmware: %s has no usable firmware.json", fw),
			"make it with `ccrun-sim firmware --kernel VMLINUZ --modules DIR --output %s`", fw)
	}
	return append(mounts,
		specs.Mount{Destination: insideTemp, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=0700"}},
		readOnlyBind(fw, insideFirmware), readOnlyBind(chip, insideChip),
		readOnlyBind(config, insideConfig), readOnlyBind(r.Binary, insideBinary), readOnlyBind(qemu, qemu)), nil // QEMU looks for its files relative to itself
}

// hostMounts links or mounts each of hostDirs that the host has.
func (r *Runtime) hostMounts(dir string) ([]specs.Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var mounts []specs.Mount
	for _, name := range hostDirs {
		host := filepath.Join(r.HostRoot, name)
		info, err := os.Lstat(host)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case info.IsDir():
			mounts = append(mounts, readOnlyBind(host, "/"+name))
		case info.Mode()&fs.ModeSymlink != 0:
			if err := copyLink(host, filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		}
	}
	return mounts, nil
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if have, err := os.Readlink(to); err == nil && have == target {
		return nil // a restart
	}
	return os.Symlink(target, to)
}

func readOnlyBind(from, to string) specs.Mount {
	return specs.Mount{Destination: to, Type: "bind", Source: from,
		Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev"}}
}
