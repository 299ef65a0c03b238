package wrapper

import (
	"cmp"
	"os"
	"syscall"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
)

// Host returns the runtime of this host, configured by the file at configPath
// if there is one.
func Host(configPath string) (*Wrapper, error) {
	c, err := readConfig(configPath)
	if err != nil {
		return nil, err
	}
	limit, err := c.bootLimit()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	state, noState := c.stateDir() // only a create needs it
	boot, err := bounded.File("/proc/sys/kernel/random/boot_id", maxBootID)
	if err != nil {
		return nil, err
	}
	return &Wrapper{
		BootID: string(boot),
		Crun:   c.Crun, CrunDirs: SystemCrunDirs(), Library: c.Library, Search: firmware.SystemSearch(), StateDir: state, noState: noState,
		Pause: SystemPausePrograms(), KVM: "/dev/kvm", SEV: "/dev/sev", SNP: SNPMachines,
		QEMU: QEMU{Binary: self, Root: c.QEMURoot, Firmware: c.QEMUFirmware, Quotes: cmp.Or(c.Quotes, qgsSocket), BootLimit: limit,
			KVM: "/dev/kvm", SEV: "/dev/sev", SNP: SNPMachines, TDX: TDXMachines, Objects: machine.CheckObject, Memory: machine.CheckMemory, Stdin: os.Stdin},
		Exec: syscall.Exec, Version: RunVersion, Environ: os.Environ(), Stdin: os.Stdin, Stderr: os.Stderr, Now: time.Now,
	}, nil
}

// ReportError writes err as Run does, for errors before there is a Wrapper.
func ReportError(argv []string, err error) {
	c, _ := crun.Parse(argv)
	report(c, err, os.Stderr, time.Now())
}
