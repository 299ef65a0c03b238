package qemu

import (
	"log/slog"
	"os"
	"time"

	"github.com/ccrun/ccrun/krun/machine"
)

// VMM runs a workload's machine.
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

// machine is what the image boots on.
func (v *VMM) machine(image *os.Root) (*machine.Machine, error) {
	b, err := loadBoot(image, v.Config)
	if err != nil {
		return nil, err
	}
	digest, err := b.digest()
	if err != nil {
		return nil, err
	}
	v.Log.Info("booting", "tee", b.tee, "launch_digest", digest, "cpus", b.shape.CPUs, "memory_mib", b.shape.MemoryMiB)
	return &machine.Machine{Kernel: b.inputs.Kernel, Initrd: b.inputs.Initrd, Cmdline: b.inputs.Cmdline, Shape: b.shape,
		Hardware: b.hardware(v.Config.Quotes), BootLimit: time.Duration(v.Config.BootSeconds) * time.Second}, nil
}
