package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// measurements is the JSON of `ccrun measure`.
type measurements struct {
	TEE      kbs.TEE           `json:"tee"`
	Firmware measuredFirmware  `json:"firmware"`
	Results  []*measure.Result `json:"measurements"`
	Legacy   []legacyResult    `json:"legacy,omitempty"`
	// Skipped are profiles that there is no machine of with these inputs, and why.
	Skipped map[measure.Profile]string `json:"skipped,omitempty"`
	Against *comparison                `json:"against,omitempty"`
}

type measuredFirmware struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`
	SHA256 string `json:"sha256"` // over what all workloads on it share
}

type legacyResult struct {
	Profile measure.Profile `json:"profile"`
	Digest  string          `json:"digest"` // SHA-256
}

func measureCommand() *cli.Command {
	return &cli.Command{
		Name:  "measure",
		Usage: "print the launch measurement that a machine will have",
		Description: "Nothing is executed and no TEE is needed. Without --initrd, the firmware's own initrd is measured.\n\n" +
			"With --vmm qemu, the machine is QEMU's with OVMF: --firmware is a directory of ccrun firmware compose, or the .fd file, and kernel, initrd and command line are\n" +
			"measured through it. For SNP, it must be the AmdSev build, and the command line keep the kernel from running the host's ACPI\n" +
			"code, which nothing measures, unless --allow-acpi allows it. For TDX the MRTD is printed; --format json also gives RTMR 1 and 2, and RTMR 0 with --event-log.\n\n" +
			"Examples:\n   ccrun measure --against 3k9m0w7f2c5d8x1a --firmware libkrunfw-sev.so.5 --server https://kbs.example:8443 --ca ca.pem --token-file token\n" +
			"   ccrun measure --tee snp --cpus 2 --memory 2g --firmware /usr/local/lib64/libkrunfw-sev.so.5 --profile libkrun-1.16\n" +
			"   ccrun measure --vmm qemu --tee snp --cpus 4 --vcpu-type EPYC-v4 --firmware OVMF.amdsev.fd --kernel vmlinuz --initrd initrd.img \\\n" +
			"      --append 'console=ttyS0 " + measure.StopsACPI + "'",
		Flags: append(append(shapeFlags(), slices.Concat(imageFlags(), serverFlags())...),
			&cli.StringFlag{Name: "vmm", Usage: "krun or qemu", Value: "krun"},
			&cli.StringFlag{Name: "firmware", Usage: "libkrunfw library or firmware directory; default: the installed library. for qemu OVMF.fd, or the directory of ccrun firmware compose", TakesFile: true},
			&cli.StringFlag{Name: "initrd", Usage: "initrd of the workload (/initrd.img of its image)", TakesFile: true},
			&cli.StringFlag{Name: "kernel", Usage: "bzImage (qemu only)", TakesFile: true},
			&cli.StringFlag{Name: "append", Usage: "kernel's `COMMAND LINE` (qemu only)"},
			&cli.StringFlag{Name: "vcpu-type", Usage: "QEMU's CPU `MODEL`, or CPUID signature such as 0xa00f11 (qemu with snp only)", Value: "EPYC-v4"},
			&cli.Uint64Flag{Name: "guest-features", Usage: "SEV_FEATURES of the vCPUs (qemu with snp only)", Value: 1},
			&cli.BoolFlag{Name: "allow-acpi", Usage: "measure a machine whose kernel runs the host's ACPI code, which can do anything in it (qemu and sample only)"},
			&cli.StringFlag{Name: "event-log", Usage: "CCEL `FILE` of such a machine, for RTMR 0 (qemu with tdx only)", TakesFile: true},
			&cli.StringFlag{Name: "image", Usage: "take TEE, shape and initrd from workload image `IMAGE`; not with an OVMF.fd"},
			&cli.StringFlag{Name: "profile", Usage: "`NAME` of a profile, or all; default: the newest, or all with --format json"},
			&cli.StringFlag{Name: "against", Usage: "`EVIDENCE`, a file, or the number of a session at --server, whose workload's TEE, shape and initrd are then taken: say which input would explain its measurement", TakesFile: true},
			face.FormatFlag(),
		),
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			return runMeasure(c)
		},
	}
}

// shapeFlags are the flags that say what machine it is.
func shapeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "tee", Usage: "snp, tdx or sample", Value: string(kbs.SNP)},
		&cli.UintFlag{Name: "cpus", Usage: "`NUMBER` of vCPUs", Value: 1},
		&cli.StringFlag{Name: "memory", Usage: "`SIZE` of memory, in MiB without a unit", Value: "2048"},
	}
}

func shapeFrom(c *cli.Context) (kbs.TEE, measure.Shape, error) {
	tee := kbs.TEE(c.String("tee"))
	if !tee.Valid() {
		return "", measure.Shape{}, face.Usagef("--tee %q: expected snp, tdx or sample", c.String("tee"))
	}
	if c.Uint("cpus") == 0 {
		return "", measure.Shape{}, face.Usagef("--cpus 0: expected 1 or more")
	}
	mib, err := parseMemoryMiB(c.String("memory"))
	return tee, measure.Shape{CPUs: c.Uint("cpus"), MemoryMiB: mib}, err
}

// machine is a VMM's, with all that is measured of it.
type machine interface {
	// about says which firmware it is.
	about() measuredFirmware
	inputs() (measure.Inputs, error)
	// variants are the inputs as given, first, and what a host boots by mistake.
	variants() ([]measure.Variant, error)
}

// measuring is what one call of `ccrun measure` works on.
type measuring struct {
	machine
	tee      kbs.TEE
	shape    measure.Shape
	profiles []measure.Profile
	shown    *shown // by a session; nil: --against is a file, or nothing
}

func runMeasure(c *cli.Context) error {
	m, err := newMeasuring(c)
	if err != nil {
		return err
	}
	out, err := m.results()
	if err != nil {
		return err
	}
	if name := c.String("against"); name != "" {
		if m.shown == nil {
			if m.shown, err = readShown(name); err != nil {
				return err
			}
		}
		if out.Against, err = m.compare(name); err != nil {
			return err
		}
	}
	if err := checkAllowedACPI(c, out.Results); err != nil {
		return err
	}
	if err := face.Print(c, out, printMeasurements); err != nil {
		return err
	}
	if out.Against != nil && !out.Against.Same {
		return face.Silent(face.Denied)
	}
	return nil
}

// checkAllowedACPI warns where --allow-acpi counts, and refuses it where not: it
// must not stay in scripts for nothing.
func checkAllowedACPI(c *cli.Context, list []*measure.Result) error {
	if !c.Bool("allow-acpi") {
		return nil
	}
	for _, r := range list {
		if r.ACPI != kbs.ACPIAllowed {
			return face.Usagef("--allow-acpi: the command line stops the host's ACPI code already, or there is none: leave it out")
		}
	}
	program.Log(c).Warn("--allow-acpi: " + krun.ACPIWarning)
	return nil
}

func newMeasuring(c *cli.Context) (*measuring, error) {
	m := &measuring{}
	var err error
	if m.tee, m.shape, err = shapeFrom(c); err != nil {
		return nil, err
	}
	switch vmm := c.String("vmm"); {
	case vmm == "krun" || vmm == krun.VMMQEMU && isComposed(c.String("firmware")):
		var initrd []byte
		if initrd, err = m.fromImage(c); err == nil && initrd == nil {
			initrd, err = m.fromSession(c)
		}
		if err == nil {
			m.machine, err = newKrunMachine(c, m.tee, initrd)
		}
	case vmm == krun.VMMQEMU:
		m.machine, err = newOVMFMachine(c, m.tee)
	default:
		err = face.Usagef("--vmm %q: expected krun or qemu", vmm)
	}
	if err != nil {
		return nil, err
	}
	return m, m.chooseProfiles(c.String("profile"), c.String("format") != "")
}

// isComposed says whether path is a directory, as `ccrun firmware compose` makes,
// which has all of a machine but its initrd: a file is OVMF alone.
func isComposed(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (m *measuring) chooseProfiles(name string, structured bool) error {
	kind := m.about().Kind
	m.profiles = measure.Profiles(m.tee, kind)
	if len(m.profiles) == 0 {
		return face.Usagef("TEE %s does not go with firmware of kind %s", m.tee, kind)
	}
	if name == "all" || name == "" && structured {
		return nil
	}
	if name == "" {
		m.profiles = m.profiles[:1]
		return nil
	}
	p, err := measure.ParseProfile(name)
	if err != nil {
		return face.WithStatus(face.Misused, err)
	}
	legacy := p == measure.LegacySEV || p == measure.LegacySEVES
	if !legacy && !slices.Contains(m.profiles, p) || legacy && (m.tee != kbs.SNP || kind != firmware.KindLibkrun) {
		return face.Usagef("profile %s does not go with TEE %s on firmware of kind %s, expected one of %v", p, m.tee, kind, m.profiles)
	}
	m.profiles = []measure.Profile{p}
	return nil
}

func (m *measuring) results() (*measurements, error) {
	in, err := m.inputs()
	if err != nil {
		return nil, err
	}
	out := &measurements{TEE: m.tee, Results: []*measure.Result{}, Firmware: m.about()}
	if p := m.profiles[0]; p == measure.LegacySEV || p == measure.LegacySEVES {
		d, err := measure.Legacy(p, in, m.shape)
		out.Legacy = []legacyResult{{Profile: p, Digest: hex.EncodeToString(d[:])}}
		return out, err
	}
	l, err := measure.Prepare(in)
	if err != nil {
		return nil, err
	}
	var failed []error
	skipped := map[measure.Profile]string{}
	for _, p := range m.profiles {
		r, err := l.Launch(p, m.shape)
		if err != nil {
			failed = append(failed, err)
			skipped[p] = err.Error()
			continue
		}
		out.Results = append(out.Results, r)
	}
	// An event log, or a kernel without setup header, fits some profiles only.
	out.Skipped = skipped
	if len(out.Results) == 0 || len(failed) != 0 && in.OVMF == nil {
		return nil, errors.Join(failed...)
	}
	return out, nil
}

func printMeasurements(w io.Writer, o *measurements) error {
	if o.Against != nil {
		_, err := fmt.Fprintln(w, o.Against.text())
		return err
	}
	for _, l := range o.Legacy {
		fmt.Fprintln(w, l.Digest)
	}
	for _, r := range o.Results {
		if len(o.Results) > 1 {
			fmt.Fprintf(w, "%s %s\n", r.Digest, r.Profile)
			continue
		}
		fmt.Fprintln(w, r.Digest) // of TDX, the MRTD: RTMRs are in the JSON
	}
	return nil
}
