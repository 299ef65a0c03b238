package sim

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/machine"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// makeRoot makes dir the root of the VMM's container, and returns what is to be
// mounted there.
func (r *Runtime) makeRoot(dir, config, qemu string) ([]specs.Mount, error) {
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
	mounts, err := machine.Root(dir, cmp.Or(r.QEMURoot, r.HostRoot), config, fw, filepath.Join("/", r.QEMURoot, qemu), qemu)
	if err != nil {
		return nil, err
	}
	return append(mounts, machine.ReadOnlyBind(chip, insideChip), machine.ReadOnlyBind(r.Binary, insideBinary)), nil
}
