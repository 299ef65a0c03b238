package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
	vmm "github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
)

// qemuCmdline is the measured command line: no word of the kernel's on the console
// after it starts, none of the host's ACPI code, and QEMU's network, out of the
// way of those that Podman makes.
const qemuCmdline = "console=ttyS0 quiet loglevel=0 panic=-1 " + measure.StopsACPI + " cryptomgr.notests ccrun.net=100.127.255.15/24,100.127.255.2,100.127.255.3"

func firmwareComposeCommand() *cli.Command {
	return &cli.Command{
		Name:  "compose",
		Usage: "make what QEMU's machines with a TEE boot from: OVMF, a distribution's kernel, and its modules",
		Description: "The same files give the same directory, byte for byte; its firmware.json has the checksum of each part, and a host that has\n" +
			"another is told so. It goes to `ccrun build --vmm qemu --firmware DIR`, which measures it, and to every host that runs the image.\n" +
			"SNP takes edk2's AmdSev build of OVMF, which checks kernel, initrd and command line (Debian: package ovmf-amdsev); TDX one with\n" +
			"TdTcg2Dxe, which extends the RTMRs (Debian: package ovmf). Where QEMU is installed, the kernel is booted once beside a hostile ACPI table.\n\n" +
			"Example:\n   ccrun firmware compose --tee snp --ovmf /usr/share/ovmf/OVMF.amdsev.fd \\\n" +
			"      --kernel /boot/vmlinuz-6.12.57+deb13-cloud-amd64 --modules /lib/modules/6.12.57+deb13-cloud-amd64 --output /var/lib/ccrun/qemu-snp",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tee", Value: string(kbs.SNP), Usage: "`TEE` of the machines: snp or tdx"},
			&cli.StringFlag{Name: "ovmf", Required: true, TakesFile: true, Usage: "OVMF `FILE`, one image with its variables"},
			&cli.StringFlag{Name: "kernel", Required: true, TakesFile: true, Usage: "`FILE`, a bzImage with EFI stub"},
			&cli.StringFlag{Name: "modules", Required: true, TakesFile: true, Usage: "`DIR` of that kernel's modules"},
			&cli.StringFlag{Name: "cpu", Value: "EPYC-v4", Usage: "QEMU's CPU `MODEL` (snp only): its signature is measured, every host must have its features"},
			&cli.StringFlag{Name: "cmdline", Value: qemuCmdline, Usage: "kernel command `LINE`"},
			&cli.BoolFlag{Name: "debug", Usage: "have the guest agent print timings"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, TakesFile: true, Usage: "`DIR` to make (default: where ccrun looks, /var/lib/ccrun/qemu-TEE)"},
			face.FormatFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			b, err := composeFirmware(c)
			if err != nil {
				return err
			}
			v, err := inspectFirmware(b.Path)
			if err != nil {
				return err
			}
			return face.Print(c, v, func(w io.Writer, v *firmwareParts) error {
				_, err := fmt.Fprintf(w, "%s\nsha256  %s\n", v.Path, v.SHA256)
				return err
			})
		},
	}
}

func composeFirmware(c *cli.Context) (*firmware.Bundle, error) {
	tee := kbs.TEE(c.String("tee"))
	if tee != kbs.SNP && tee != kbs.TDX {
		return nil, face.Usagef("--tee %q: expected snp or tdx", tee)
	}
	if tee == kbs.TDX && c.IsSet("cpu") {
		return nil, face.Usagef("--cpu: only with --tee snp: a TD has the host's")
	}
	if err := checkOVMF(c.String("ovmf"), tee); err != nil {
		return nil, err
	}
	s := firmware.Sample{Kernel: c.String("kernel"), ModuleDir: c.String("modules"), OVMF: c.String("ovmf"), Cmdline: c.String("cmdline")}
	if tee == kbs.SNP {
		s.CPU = c.String("cpu")
		if _, err := measure.ParseCPU(s.CPU); err != nil {
			return nil, face.WithStatus(face.Misused, fmt.Errorf("--cpu: %w", err))
		}
	}
	if c.Bool("debug") {
		s.Cmdline += " ccrun.debug"
	}
	in := measure.Inputs{Cmdline: s.Cmdline}
	_, err := in.ACPI(measure.QEMUDirect)
	if err != nil {
		return nil, err
	}
	if s.Modules, err = firmware.GuestModules(s.ModuleDir, tee); err != nil {
		return nil, err
	}
	out := c.String("output")
	if out == "" {
		dirs := firmware.ComposedDirs(tee)
		out = dirs[len(dirs)-1]
	}
	b, err := firmware.WriteDir(out, s)
	if err != nil {
		return nil, err
	}
	if err := probeKernel(c, b); err != nil {
		return nil, errors.Join(err, os.Remove(filepath.Join(out, firmware.ConfigFile))) // without it, it is no firmware
	}
	return b, nil
}

// probeKernel tries what the command line says of the host's ACPI code, where it
// can be tried.
func probeKernel(c *cli.Context, b *firmware.Bundle) error {
	if _, err := vmm.FindQEMU(); err != nil {
		program.Log(c).Warn("the kernel was not tried beside a hostile ACPI table: " + err.Error())
		return nil
	}
	return vmm.ProbeACPI(c.Context, b)
}

// checkOVMF refuses firmware that would launch, and prove nothing of the kernel.
func checkOVMF(path string, tee kbs.TEE) error {
	image, err := bounded.File(path, firmware.MaxOVMFBytes)
	if err != nil {
		return err
	}
	o, err := firmware.ParseOVMF(image)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	v, err := judgeOVMF(o)
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", path, err)
	case tee == kbs.SNP && !v.SNP:
		return hint.With(fmt.Errorf("%s has no SEV metadata, so no SNP machine boots it", path), "take edk2's AmdSev build (Debian: package ovmf-amdsev)")
	case tee == kbs.SNP && !v.VerifiesKernel:
		return hint.With(fmt.Errorf("%s: %w", path, measure.ErrUnverified), "take edk2's AmdSev build (Debian: package ovmf-amdsev, /usr/share/ovmf/OVMF.amdsev.fd)")
	case tee == kbs.TDX && !v.TDX:
		return hint.With(fmt.Errorf("%s has no TDX metadata, so no TD boots it", path), "take edk2's OvmfPkgX64 or IntelTdxX64 build of 2023 or later")
	case tee == kbs.TDX && !v.MeasuresTD:
		return hint.With(fmt.Errorf("%s: %w", path, measure.ErrUnmeasured), "take edk2's OvmfPkgX64 or IntelTdxX64 build, and not AmdSevX64")
	}
	return nil
}

// ovmfVerdict says which machines an OVMF file is good for.
type ovmfVerdict struct {
	SNP            bool `json:"snp"`             // an SNP machine boots it
	VerifiesKernel bool `json:"verifies_kernel"` // and it boots no kernel but the measured
	TDX            bool `json:"tdx"`             // a TD boots it
	MeasuresTD     bool `json:"measures_td"`     // and it extends the RTMRs
}

func judgeOVMF(o *firmware.OVMF) (*ovmfVerdict, error) {
	v := &ovmfVerdict{SNP: len(o.SEV) > 0 && o.ResetEIP != 0, TDX: len(o.TDX) > 0}
	for _, s := range o.SEV {
		v.SNP = v.SNP && s.SizeBytes > 0
	}
	var err error
	if v.VerifiesKernel, err = o.VerifiesKernel(); err != nil {
		return nil, err
	}
	v.MeasuresTD, err = o.MeasuresTD()
	return v, err
}

func printOVMF(w io.Writer, v *ovmfVerdict) {
	if v == nil {
		return
	}
	say := func(boots, proves bool, what string) string {
		switch {
		case !boots:
			return "no"
		case !proves:
			return "boots, but " + what + ": of no use"
		}
		return "yes"
	}
	fmt.Fprintf(w, "snp     %s\n", say(v.SNP, v.VerifiesKernel, "checks no kernel hashes"))
	fmt.Fprintf(w, "tdx     %s\n", say(v.TDX, v.MeasuresTD, "extends no RTMRs"))
}

// inspectOVMFFile is nil for a file that is no OVMF.
func inspectOVMFFile(path string) (*firmwareParts, error) {
	info, err := os.Stat(path)
	if err != nil || info.Size() > firmware.MaxOVMFBytes {
		return nil, err
	}
	image, err := bounded.File(path, firmware.MaxOVMFBytes)
	if err != nil {
		return nil, err
	}
	o, err := firmware.ParseOVMF(image)
	if err != nil {
		return nil, nil
	}
	sum := sha256.Sum256(image)
	v := &firmwareParts{Path: path, Kind: firmware.KindOVMF, SHA256: hex.EncodeToString(sum[:])}
	v.add("ovmf", image)
	v.OVMF, err = judgeOVMF(o)
	return v, err
}
