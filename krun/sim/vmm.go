package sim

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/machine"
)

// VMM plays the parts that a TEE host has besides the guest: firmware loading,
// secure processor, and, with package machine, virtual machine monitor.
type VMM struct {
	Config *Config
	Log    *slog.Logger
	// StopTimeout is Machine's.
	StopTimeout time.Duration
}

// Run boots the image and returns the exit status for the container. Signals
// are passed on to the workload.
func (v *VMM) Run(signals <-chan os.Signal) (int, error) {
	c := v.Config
	m := machine.Monitor{ImageDir: c.ImageDir, QEMU: c.QEMU, TempDir: c.TempDir, ReadOnly: c.ReadOnly, Ports: c.Ports,
		Warnings: c.Warnings, Log: v.Log, StopTimeout: v.StopTimeout}
	return m.Run(signals, v.machine)
}

// machine is what the image boots on, and the chip beside it.
func (v *VMM) machine(image *os.Root) (*machine.Machine, error) {
	b, err := loadBoot(image, v.Config.FirmwareDir)
	if err != nil {
		return nil, err
	}
	sign, err := v.signer(b)
	if err != nil {
		return nil, err
	}
	hardware, limit, err := b.hardware(v.Config.Direct)
	if err != nil {
		return nil, err
	}
	m := &machine.Machine{Kernel: b.inputs.Kernel, Initrd: b.inputs.Initrd, Cmdline: b.inputs.Cmdline, Shape: b.shape,
		Hardware: hardware, BootLimit: limit,
		Report: func(port io.ReadWriter) error { return serveReports(port, sign) }}
	if v.Config.Announce {
		m.Started = func() { fmt.Fprintln(os.Stderr, krun.StartedLine) }
	}
	return m, nil
}

// signer measures the boot, once, and opens the chip that signs for it.
func (v *VMM) signer(b *boot) (Signer, error) {
	digest, err := b.digest()
	if err != nil {
		return nil, err
	}
	launch, err := sample.NewLaunch(digest)
	if err != nil {
		return nil, err
	}
	launch.HostData = b.hostData
	chip, err := sample.OpenChip(v.Config.ChipDir)
	if err != nil {
		return nil, err
	}
	v.Log.Info("booting", "launch_digest", digest, "cpus", b.shape.CPUs, "memory_mib", b.shape.MemoryMiB)
	return func(d kbs.ReportData) (kbs.Evidence, error) { return chip.Sign(d, launch) }, nil
}
