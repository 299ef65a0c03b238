package qemu

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ccrun/ccrun/krun"
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
	digest, err := b.digest()
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
	v.Log.Info("booting", "tee", b.tee, "launch_digest", digest, "cpus", b.shape.CPUs, "memory_mib", b.shape.MemoryMiB)
	m := machine.Machine{
		QEMU: v.Config.QEMU, TempDir: v.Config.TempDir,
		Kernel: b.inputs.Kernel, Initrd: b.inputs.Initrd, Cmdline: b.inputs.Cmdline, Shape: b.shape,
		Hardware: b.hardware(v.Config.Quotes), Disk: disk, ThrowAway: v.Config.ReadOnly, Ports: v.Config.Ports,
		Log: v.Log, StopTimeout: v.StopTimeout, BootLimit: time.Duration(v.Config.BootSeconds) * time.Second,
	}
	return m.Run(signals)
}
