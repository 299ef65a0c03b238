package sim

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// makeRoot makes dir the root of the VMM's container, and returns what is to be
// mounted there.
func (r *Runtime) makeRoot(dir, config, fw, qemu string) ([]specs.Mount, error) {
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

// firmwareFor is what an image's machine boots from: by its profile, as in
// production.
func (r *Runtime) firmwareFor(hints *krun.Hints) (string, error) {
	switch {
	case hints.Profile != "" && r.QEMUFirmware != "":
		return r.QEMUFirmware, nil
	case hints.Profile != "":
		dir, err := firmware.FindComposed(kbs.SNP)
		return dir, hint.With(err, "make it with `ccrun firmware compose --tee snp`, or name it in $CCRUN_SIM_QEMU_FIRMWARE")
	}
	return cmp.Or(r.Firmware, filepath.Join(r.Root, "firmware")), nil
}

const oldQEMU = "this QEMU is older than 10.1 and writes into the kernel's header, which OVMF refuses: the kernel boots without OVMF, which is measured all the same"

// patchesKernels says whether QEMU hands firmware another kernel than it was
// given, which it does without SEV up to 10.0. One with TDX is later.
func (r *Runtime) patchesKernels(qemu string) bool {
	return machine.CheckObject(context.Background(), r.QEMURoot, qemu, kbs.TDX) != nil
}
