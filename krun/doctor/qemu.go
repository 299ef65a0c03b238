package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/machine"
)

// teeOf is the TEE whose machines QEMU would make here.
func (h *Host) teeOf() kbs.TEE {
	if h.snp() != nil && h.tdx() == nil {
		return kbs.TDX
	}
	return kbs.SNP
}

// qemu wants a crun, of any kind, and a QEMU with the object of the host's TEE.
// Without a QEMU nothing else of it is looked at.
func (h *Host) qemu(ctx context.Context) (string, error) {
	if _, err := h.runtime.FindCrun(); err != nil {
		h.noQEMU = true
		return "", err
	}
	path, err := h.runtime.QEMU.Program(ctx, h.teeOf())
	if err != nil {
		h.noQEMU = !errors.Is(err, machine.ErrNoObject)
		return "", fmt.Errorf("images of `ccrun build --vmm qemu` do not run here: %w", err)
	}
	return fmt.Sprintf("%s in %s, makes machines for TEE %s", path, cmp.Or(h.runtime.QEMU.Root, "/"), h.teeOf()), nil
}

func (h *Host) qemuTEE(context.Context) (string, error) {
	if err := h.snp(); err != nil && h.tdx() != nil {
		return "", errors.New("neither SEV-SNP nor TDX is enabled")
	}
	devices, err := h.runtime.QEMU.Devices(h.teeOf())
	if err != nil {
		return "", err
	}
	got := string(h.teeOf())
	for _, d := range devices {
		got += ", " + d.Path
	}
	return got, nil
}

// qemuFirmware wants OVMF that launches to some purpose: that compares the kernel
// with what was measured, or extends a TD's registers.
func (h *Host) qemuFirmware(context.Context) (string, error) {
	fw, err := h.runtime.QEMU.FirmwareFor(h.teeOf())
	if err != nil {
		return "", err
	}
	proves, what := fw.OVMF.VerifiesKernel, "checks no kernel hashes"
	if h.teeOf() == kbs.TDX {
		proves, what = fw.OVMF.MeasuresTD, "extends no RTMRs"
	}
	switch ok, err := proves(); {
	case err != nil:
		return "", fmt.Errorf("reading the OVMF in %s: %w", fw.Path, err)
	case !ok:
		return "", fmt.Errorf("the OVMF in %s %s: a machine would start, and prove nothing of its kernel", fw.Path, what)
	}
	return fmt.Sprintf("%s, %x", fw.Path, fw.Digest), nil
}

func (h *Host) quotes(context.Context) (string, error) {
	return h.runtime.QEMU.Quotes, machine.CheckQuotes(h.runtime.QEMU.Quotes)
}

// leastMiB is the memory of a small machine.
const leastMiB = 512

// memory of guests is guest_memfd's, which cannot be swapped out.
func (h *Host) memory(context.Context) (string, error) {
	if err := h.runtime.QEMU.Memory(leastMiB); err != nil {
		return "", warning{err}
	}
	return fmt.Sprintf("enough for a machine of %d MiB; a machine that does not fit is refused", leastMiB), nil
}
