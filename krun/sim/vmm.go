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
	for _, w := range v.Config.Warnings {
		v.Log.Warn(w)
	}
	root, err := os.OpenRoot(v.Config.ImageDir)
	if err != nil {
		return machine.ExitFailure, fmt.Errorf("opening image: %w", err)
	}
	defer root.Close()
	b, err := loadBoot(root, v.Config.FirmwareDir)
	if err != nil {
		return machine.ExitFailure, err
	}
	sign, err := v.signer(b)
	if err != nil {
		return machine.ExitFailure, err
	}
	flag := os.O_RDWR
	if v.Config.ReadOnly {
		flag = os.O_RDONLY
	}
	disk, err := machine.OpenRegular(root, krun.DiskFile, flag)
	if err != nil {
		return machine.ExitFailure, err
	}
	defer disk.Close()
	hardware, limit, err := b.hardware(v.Config.Direct)
	if err != nil {
		return machine.ExitFailure, err
	}
	m := machine.Machine{
		QEMU: v.Config.QEMU, TempDir: v.Config.TempDir,
		Kernel: b.inputs.Kernel, Initrd: b.inputs.Initrd, Cmdline: b.inputs.Cmdline, Shape: b.shape,
		Hardware: hardware, BootLimit: limit, Disk: disk, ThrowAway: v.Config.ReadOnly, Ports: v.Config.Ports,
		Report: func(port io.ReadWriter) error { return serveReports(port, sign) },
		Log:    v.Log, StopTimeout: v.StopTimeout,
	}
	if v.Config.Announce {
		m.Started = func() { fmt.Fprintln(os.Stderr, krun.StartedLine) }
	}
	return m.Run(signals)
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
