package qemu

import (
	"fmt"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

// maxConfigFile bounds the image's krun-sev.json.
const maxConfigFile = 64 << 10

// boot is everything that decides what a machine executes first. Each file is read
// once: what was looked at is what boots.
type boot struct {
	tee      kbs.TEE
	shape    measure.Shape
	inputs   measure.Inputs
	cpu      string // QEMU's model
	identity []byte // canonical
}

// loadBoot reads firmware and image.
func loadBoot(root *os.Root, c *Config) (*boot, error) {
	config, err := readTEEConfig(root)
	if err != nil {
		return nil, err
	}
	initrd, err := machine.ReadRegular(root, krun.InitrdFile, firmware.MaxInitrdBytes)
	if err != nil {
		return nil, err
	}
	id, err := readIdentity(initrd, config.TEE)
	if err != nil {
		return nil, fmt.Errorf("reading /%s: %w", krun.InitrdFile, err)
	}
	fw, err := firmware.Load(c.FirmwareDir)
	if err != nil {
		return nil, err
	}
	if fw.Kind != firmware.KindOVMF {
		return nil, hint.With(fmt.Errorf("firmware is of kind %q, expected %q", fw.Kind, firmware.KindOVMF), "`ccrun firmware compose` makes it")
	}
	if have := fmt.Sprintf("%x", fw.Digest); have != c.FirmwareSHA256 {
		return nil, hint.With(fmt.Errorf("the firmware is %s, but was %s when the container was created", have, c.FirmwareSHA256),
			"somebody changed the directory in between: start the container again")
	}
	b := &boot{tee: config.TEE, shape: measure.Shape{CPUs: uint(config.CPUs), MemoryMiB: config.MemoryMiB}, cpu: fw.CPU}
	if b.identity, err = id.Encode(); err != nil {
		return nil, err
	}
	if b.inputs, err = measure.FromBundle(fw, initrd); err != nil {
		return nil, err
	}
	b.inputs.AllowACPI = id.Policy.AllowACPI
	return b, nil
}

func readTEEConfig(root *os.Root) (*krun.TEEConfig, error) {
	raw, err := machine.ReadRegular(root, krun.TEEConfigFile, maxConfigFile)
	if err != nil {
		return nil, err
	}
	var c krun.TEEConfig
	if err := kbs.UnmarshalStrict(raw, &c); err != nil {
		return nil, fmt.Errorf("decoding /%s: %w", krun.TEEConfigFile, err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("reading /%s: %w", krun.TEEConfigFile, err)
	}
	return &c, nil
}

// readIdentity is the initrd's, which must be one for QEMU and that TEE: the guest
// of another would wait for what this machine does not have.
func readIdentity(initrd []byte, tee kbs.TEE) (*krun.Identity, error) {
	id, _, err := firmware.InspectInitrd(initrd)
	switch {
	case err != nil:
		return nil, err
	case id.VMM != krun.VMMQEMU:
		return nil, hint.With(fmt.Errorf("the identity is for VMM %q, expected %q", id.VMM, krun.VMMQEMU), "build the image with --vmm qemu")
	case id.TEE != tee:
		return nil, fmt.Errorf("the identity is for TEE %s, but /%s for %s", id.TEE, krun.TEEConfigFile, tee)
	}
	return id, nil
}

// profile is the one that the machine is measured by.
func (b *boot) profile() (measure.Profile, error) {
	switch b.tee {
	case kbs.SNP:
		return measure.QEMUSNP, nil
	case kbs.TDX:
		return measure.QEMUTDX, nil
	}
	return "", fmt.Errorf("the image is for TEE %s, expected snp or tdx", b.tee)
}

// digest is what the machine will measure. It refuses firmware that would launch
// and prove nothing, as measuring does.
func (b *boot) digest() (kbs.LaunchDigest, error) {
	p, err := b.profile()
	if err != nil {
		return kbs.LaunchDigest{}, err
	}
	if _, err := b.inputs.ACPI(p); err != nil {
		return kbs.LaunchDigest{}, err
	}
	r, err := measure.Launch(p, b.inputs, b.shape)
	if err != nil {
		return kbs.LaunchDigest{}, err
	}
	return r.Digest, nil
}

// hardware is the machine with the TEE's object.
func (b *boot) hardware(quotes string) machine.Hardware {
	if b.tee == kbs.TDX {
		return machine.TDX{OVMF: b.inputs.OVMF.Image, ConfigID: krun.ConfigID(b.identity), QuoteSocket: quotes}
	}
	return machine.SNP{OVMF: b.inputs.OVMF.Image, CPU: b.cpu, HostData: krun.HostData(b.identity), CBit: machine.HostCBit()}
}
