package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

const (
	// probeTime bounds the probe's boot, on the slowest of machines.
	probeTime = 10 * time.Minute
	// maxProbeOutput bounds what is kept of a console.
	maxProbeOutput = 4 << 20
	// probeWords let the kernel tell of its end, which comes for want of a
	// program to start: by then it has run all of the tables that it would.
	probeWords = " loglevel=4 panic=-1 rdinit=/none root=none"
	probeEnd   = "Kernel panic - not syncing"
)

// ErrHostACPI reports a kernel that ran the probe's ACPI code.
var ErrHostACPI = errors.New("the kernel runs the host's ACPI code")

// ProbeACPI boots the kernel of fw, with its command line, beside a hostile ACPI
// table, and returns ErrHostACPI if the kernel ran any of the table's code. A
// kernel says nothing of a parameter that it does not know, such as a name in
// initcall_blacklist that a later version gave up; so each is tried.
func ProbeACPI(ctx context.Context, fw *firmware.Bundle) error {
	ran, console, err := probe(ctx, fw)
	switch {
	case err != nil:
		return fmt.Errorf("booting %s beside a hostile ACPI table: %w", fw.Path, err)
	case len(ran) > 0:
		return hint.With(fmt.Errorf("%w: with command line %q it ran %q of a hostile table", ErrHostACPI, fw.Cmdline, ran[:min(len(ran), 16)]),
			"this kernel may know %s by another name: take an older one, or allow the host this code with --allow-acpi", measure.StopsACPI)
	case !strings.Contains(console, probeEnd):
		return fmt.Errorf("booting %s beside a hostile ACPI table: the kernel did not come to its end, the console's last words: %q", fw.Path, console[max(0, len(console)-500):])
	}
	return nil
}

// probe returns what the table's code wrote, and the console.
func probe(ctx context.Context, fw *firmware.Bundle) (ran []byte, console string, err error) {
	qemu, err := FindQEMU()
	if err != nil {
		return nil, "", err
	}
	tmp, err := os.MkdirTemp("", "ccrun-probe-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(tmp)
	letters, screen := filepath.Join(tmp, "letters"), filepath.Join(tmp, "screen")
	m := new(command)
	defer func() { closeAll(m.files) }()
	if err := m.layOut(fw, letters, screen); err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := m.run(ctx, qemu, tmp); err != nil {
		return nil, "", err
	}
	if ran, err = bounded.File(letters, maxProbeOutput); err != nil {
		return nil, "", err
	}
	text, err := bounded.File(screen, maxProbeOutput)
	return ran, string(text), err
}

// layOut lays the machine out: the firmware's own parts, the table, and two files
// to write to.
func (m *command) layOut(fw *firmware.Bundle, letters, screen string) error {
	m.frame()
	if err := (Emulated{}).layOut(m, measure.Shape{CPUs: 2, MemoryMiB: 512}); err != nil {
		return err
	}
	m.arg("-append", fw.Cmdline+probeWords)
	for _, part := range []struct {
		flag, value string
		content     []byte
	}{{"-kernel", "", fw.Kernel}, {"-initrd", "", fw.InitrdBase}, {"-acpitable", "file=", HostileTable()}} {
		if len(part.content) == 0 {
			continue // firmware without modules
		}
		f, err := sealed(part.flag[1:], part.content)
		if err != nil {
			return err
		}
		m.arg(part.flag, part.value+m.path(f))
	}
	m.arg("-serial", "file:"+screen, "-chardev", "file,id=letters,path="+letters)
	m.arg("-device", fmt.Sprintf("isa-debugcon,iobase=%#x,chardev=letters", HostilePort))
	return nil
}

// run starts QEMU and waits for its end, which is a restart of the guest.
func (m *command) run(ctx context.Context, qemu, tmp string) error {
	c := m.process(qemu, tmp)
	ended, err := startTied(c)
	if err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.Process.Kill(), <-ended)
	}
}
