package sim

import (
	"crypto/sha256"
	"fmt"
	"os"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

// boot is everything that decides what a machine executes first.
type boot struct {
	inputs measure.Inputs // the initrd is modules ‖ agent segment ‖ identity segment
	shape  measure.Shape
	// hostData is the identity's digest, with which production's QEMU launches a
	// machine of its; zero for others.
	hostData [sha256.Size]byte
}

// digest is the launch digest: what `ccrun build` predicted for these bytes.
func (b *boot) digest() (kbs.LaunchDigest, error) {
	p := measure.QEMUDirect
	if b.inputs.OVMF != nil {
		p = measure.QEMUSNP
	}
	r, err := measure.Launch(p, b.inputs, b.shape)
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
	initrd, err := machine.ReadRegular(root, krun.InitrdFile, maxInitrdBytes)
	if err != nil {
		return nil, err
	}
	hostData, err := hostDataOf(initrd)
	if err != nil {
		return nil, err
	}
	fw, err := firmware.Load(firmwareDir)
	if err != nil {
		return nil, err
	}
	if fw.Kind != firmware.KindQEMUDirect && fw.Kind != firmware.KindOVMF {
		return nil, fmt.Errorf("firmware %s is of kind %q, expected %q or %q", firmwareDir, fw.Kind, firmware.KindQEMUDirect, firmware.KindOVMF)
	}
	inputs, err := measure.FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	inputs.AllowACPI = true // for the guest and its owner to refuse, not for a host
	return &boot{hostData: hostData, inputs: inputs, shape: measure.Shape{CPUs: uint(config.CPUs), MemoryMiB: config.MemoryMiB}}, nil
}

// hostDataOf looks for an identity that says VMM qemu. What the initrd says else is
// for guest and server to judge.
func hostDataOf(initrd []byte) (sum [sha256.Size]byte, err error) {
	id, _, err := firmware.InspectInitrd(initrd)
	if err != nil || id.VMM != krun.VMMQEMU {
		return sum, nil
	}
	identity, err := id.Encode()
	if err != nil {
		return sum, err
	}
	return krun.HostData(identity), nil
}

// bootLimit is for OVMF, which stops without a word at what it does not know.
const bootLimit = 5 * time.Minute

// hardware is the machine that b boots on: with OVMF, an SNP machine's less the
// TEE, where the table of hashes is put into memory by another hand.
func (b *boot) hardware(direct bool) (h machine.Emulated, limit time.Duration, err error) {
	if b.inputs.OVMF == nil || direct {
		return h, 0, nil
	}
	h.OVMF = b.inputs.OVMF.Image
	h.HashesGPA, h.Hashes, err = b.inputs.HashPage()
	return h, bootLimit, err
}
