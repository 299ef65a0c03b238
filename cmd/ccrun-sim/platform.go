package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make the simulated platform's keys and certificates, once",
		Description: "Makes an ARK, an ASK and a VCEK of its own in DIR, unless they are there already.\n" +
			"Whoever can read DIR can forge any evidence: " + notice + ".\n\nExample:\n   ccrun-sim init --sample-root /var/lib/ccrun-sim",
		Flags: []cli.Flag{rootFlag()},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			dir := c.String("sample-root")
			if err := sample.Ensure(dir, now()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.App.Writer, dir)
			return err
		},
	}
}

// defaultCmdline is the measured kernel command line. no_timer_check: on a host
// under load QEMU's timer ticks too late for the kernel's test of it, which ends
// in a panic, and one without a word (loglevel=0); under KVM kernels leave the
// test out by themselves. cryptomgr.notests: they test ciphers at each start, which
// protects nobody here. The network is QEMU's,
// out of the way of those that Podman makes: 10.0.2.0/24, the default of QEMU,
// is slirp4netns' for rootless containers, too.
// The host's ACPI tables are data, not code.
const defaultCmdline = "console=ttyS0 quiet loglevel=0 panic=-1 " + measure.StopsACPI + " no_timer_check cryptomgr.notests ccrun.net=100.127.255.15/24,100.127.255.2,100.127.255.3"

func firmwareCommand() *cli.Command {
	return &cli.Command{
		Name:  "firmware",
		Usage: "make the directory that simulated machines boot from",
		Description: "Takes a distribution's kernel and modules, and boots it once to see that it runs none of the host's ACPI code. The same directory goes to `ccrun build --tee sample\n" +
			"--firmware DIR`, which measures it, and to krun-sim, which boots it.\n\nExample:\n" +
			"   ccrun-sim firmware --kernel /boot/vmlinuz-6.1.0-56-cloud-amd64 \\\n" +
			"      --modules /lib/modules/6.1.0-56-cloud-amd64 --output /var/lib/ccrun-sim/firmware",
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "kernel", Required: true, Usage: "`FILE`, a bzImage"},
			&cli.StringFlag{Name: "modules", Required: true, Usage: "`DIR` of that kernel's modules"},
			&cli.StringFlag{Name: "output", Usage: "`DIR` to make (default: firmware in the sample root)"},
			&cli.StringFlag{Name: "cmdline", Value: defaultCmdline, Usage: "kernel command `LINE`"},
			&cli.BoolFlag{Name: "allow-acpi", Usage: "let the guest's kernel run the host's ACPI code, which nothing measures"},
			&cli.BoolFlag{Name: "debug", Usage: "have the guest agent print timings"},
		},
		Action: makeFirmware,
	}
}

func makeFirmware(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	out := c.String("output")
	if out == "" {
		out = filepath.Join(c.String("sample-root"), "firmware")
	}
	cmdline := c.String("cmdline")
	if c.Bool("debug") {
		cmdline += " ccrun.debug"
	}
	modules, err := firmware.GuestModules(c.String("modules"), kbs.Sample)
	if err != nil {
		return err
	}
	b, err := firmware.WriteDir(out, firmware.Sample{Kernel: c.String("kernel"), ModuleDir: c.String("modules"),
		Modules: modules, Cmdline: cmdline})
	if err != nil {
		return err
	}
	if err := checkACPI(c, b); err != nil {
		return errors.Join(err, os.Remove(filepath.Join(out, firmware.ConfigFile))) // without it, it is no firmware
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s\n", b.Path)
	return err
}

// checkACPI wants the kernel to run no code of the host's, and tries it.
func checkACPI(c *cli.Context, b *firmware.Bundle) error {
	in := measure.Inputs{Kernel: b.Kernel, Cmdline: b.Cmdline, AllowACPI: c.Bool("allow-acpi")}
	state, err := in.ACPI(measure.QEMUDirect)
	switch {
	case err != nil:
		return err
	case state == kbs.ACPIAllowed:
		program.Log(c).Warn("--allow-acpi: " + krun.ACPIWarning)
		return nil
	case c.Bool("allow-acpi"):
		return face.Usagef("--allow-acpi: the command line stops the host's ACPI code: leave it out")
	}
	return machine.ProbeACPI(c.Context, b)
}
