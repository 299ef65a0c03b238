package main

import (
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
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
)

func firmwareCommand() *cli.Command {
	return &cli.Command{
		Name:        "firmware",
		Usage:       "build and inspect what machines boot from: libkrunfw, or QEMU's OVMF, kernel and modules",
		Description: "Example:\n   ccrun firmware build --initrd initrd.img --output libkrunfw-sev.so.5",
		Subcommands: []*cli.Command{firmwareBuildCommand(), firmwareComposeCommand(), firmwareInspectCommand()},
	}
}

func firmwareBuildCommand() *cli.Command {
	return &cli.Command{
		Name:  "build",
		Usage: "write a libkrunfw library with the kernel and qboot of another and a workload's initrd",
		Description: "What `krun` does by itself for every ccrun workload image; for launchers of your own.\n\n" +
			"Example:\n   ccrun firmware build --from /usr/local/lib64/libkrunfw-sev.so.5 --initrd initrd.img --output libkrunfw-sev.so.5",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "libkrunfw library or firmware directory; default: the installed library", TakesFile: true},
			&cli.StringFlag{Name: "initrd", Usage: "initrd of the workload (/initrd.img of its image)", TakesFile: true},
			&cli.StringFlag{Name: "agent", Usage: "guest agent (ccrun-init) to make an initrd without identity of", TakesFile: true},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write", Required: true, TakesFile: true},
		},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			return buildFirmware(c.String("from"), c.String("initrd"), c.String("agent"), c.String("output"))
		},
	}
}

func buildFirmware(from, initrdFile, agentFile, output string) error {
	if (initrdFile == "") == (agentFile == "") {
		return face.Usagef("expected either --initrd or --agent")
	}
	b, err := loadFirmware(from, kbs.SNP)
	if err != nil {
		return err
	}
	initrd, err := initrdFrom(initrdFile, agentFile)
	if err != nil {
		return err
	}
	lib, err := firmware.BuildLibrary(b, initrd)
	if err != nil {
		return err
	}
	return firmware.WriteFile(output, lib, 0o755)
}

func initrdFrom(initrdFile, agentFile string) ([]byte, error) {
	if initrdFile != "" {
		return bounded.File(initrdFile, firmware.MaxInitrdBytes)
	}
	agent, err := bounded.File(agentFile, 64<<20)
	if err != nil {
		return nil, err
	}
	segment, err := firmware.AgentSegment(agent)
	if err != nil {
		return nil, err
	}
	return firmware.ComposeInitrd(segment)
}

func firmwareInspectCommand() *cli.Command {
	return &cli.Command{
		Name:        "inspect",
		Usage:       "show what a library, a firmware directory or an initrd holds",
		ArgsUsage:   "[FILE|DIR]",
		Description: "Nothing in it is executed. Without an argument, the installed library.\n\nExample:\n   ccrun firmware inspect --format json /usr/local/lib64/libkrunfw-sev.so.5",
		Flags:       []cli.Flag{face.FormatFlag()},
		Action: func(c *cli.Context) error {
			if err := face.Args(c, 0, 1, "[FILE|DIR]"); err != nil {
				return err
			}
			v, err := inspectFirmware(c.Args().First())
			if err != nil {
				return err
			}
			return face.Print(c, v, printFirmware)
		},
	}
}

// firmwareParts is the JSON of `ccrun firmware inspect`.
type firmwareParts struct {
	Path        string         `json:"path"`
	Kind        string         `json:"kind"` // libkrun, qemu-direct, ovmf or initrd
	SHA256      string         `json:"sha256,omitempty"`
	Parts       []firmwarePart `json:"parts"`
	KernelLoad  uint64         `json:"kernel_load,omitempty"`
	KernelEntry uint64         `json:"kernel_entry,omitempty"`
	Cmdline     string         `json:"cmdline,omitempty"`
	CPU         string         `json:"cpu,omitempty"`
	OVMF        *ovmfVerdict   `json:"ovmf,omitempty"`
	Initrd      *initrdContent `json:"initrd,omitempty"`
}

type firmwarePart struct {
	Name      string     `json:"name"`
	SizeBytes int        `json:"size_bytes"`
	SHA384    kbs.Digest `json:"sha384"`
}

type initrdContent struct {
	Entries  []firmware.Entry `json:"entries,omitempty"`
	Identity *krun.Identity   `json:"identity,omitempty"`
	Problem  string           `json:"problem,omitempty"` // why it could not be read
}

func inspectFirmware(path string) (*firmwareParts, error) {
	if path != "" && !isLibraryOrDir(path) {
		if v, err := inspectOVMFFile(path); v != nil || err != nil {
			return v, err
		}
		return inspectInitrdFile(path)
	}
	b, err := loadFirmware(path, kbs.SNP)
	if err != nil {
		return nil, err
	}
	v := &firmwareParts{Path: b.Path, Kind: b.Kind, SHA256: hex.EncodeToString(b.Digest[:]),
		KernelLoad: b.KernelLoad, KernelEntry: b.KernelEntry, Cmdline: b.Cmdline}
	if b.OVMF != nil {
		v.CPU = b.CPU
		v.add("ovmf", b.OVMF.Image)
		if v.OVMF, err = judgeOVMF(b.OVMF); err != nil {
			return nil, err
		}
	}
	v.add("qboot", b.QBoot)
	v.add("kernel", b.Kernel)
	initrd := append(b.InitrdBase[:len(b.InitrdBase):len(b.InitrdBase)], b.Initrd...)
	if v.add("initrd", initrd); len(initrd) > 0 {
		v.Initrd, _ = readInitrd(initrd)
	}
	return v, nil
}

func isLibraryOrDir(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true // Load says what is wrong
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err != nil || string(magic[:]) == "\x7fELF"
}

func inspectInitrdFile(path string) (*firmwareParts, error) {
	b, err := bounded.File(path, firmware.MaxInitrdBytes)
	if err != nil {
		return nil, err
	}
	v := &firmwareParts{Path: path, Kind: "initrd"}
	v.add("initrd", b)
	if v.Initrd, err = readInitrd(b); err != nil {
		return nil, hint.With(fmt.Errorf("%s is neither firmware nor an initrd: %w", filepath.Base(path), err),
			"name libkrunfw-sev.so.5, a directory of `ccrun-sim firmware`, or the initrd.img of a workload image")
	}
	return v, nil
}

// readInitrd lists an initrd; one that is not ours may be of a form that we
// do not read, which is then its Problem.
func readInitrd(b []byte) (*initrdContent, error) {
	id, entries, err := firmware.InspectInitrd(b)
	if errors.Is(err, firmware.ErrNoIdentity) {
		err = nil
	}
	c := &initrdContent{Entries: entries, Identity: id}
	if err != nil {
		c.Problem = err.Error()
	}
	return c, err
}

func (v *firmwareParts) add(name string, b []byte) {
	if len(b) > 0 {
		v.Parts = append(v.Parts, firmwarePart{Name: name, SizeBytes: len(b), SHA384: kbs.Sum384(b)})
	}
}

func printFirmware(w io.Writer, v *firmwareParts) error {
	fmt.Fprintf(w, "%s\nkind    %s\n", v.Path, v.Kind)
	if v.SHA256 != "" {
		fmt.Fprintf(w, "sha256  %s\n", v.SHA256)
	}
	if v.KernelLoad != 0 {
		fmt.Fprintf(w, "load    %#x\nentry   %#x\n", v.KernelLoad, v.KernelEntry)
	}
	if v.Cmdline != "" {
		fmt.Fprintf(w, "cmdline %s\n", v.Cmdline)
	}
	if v.CPU != "" {
		fmt.Fprintf(w, "cpu     %s\n", v.CPU)
	}
	printOVMF(w, v.OVMF)
	for _, p := range v.Parts {
		fmt.Fprintf(w, "%-7s %10d bytes  sha384 %s\n", p.Name, p.SizeBytes, p.SHA384)
	}
	if v.Initrd == nil {
		return nil
	}
	for _, e := range v.Initrd.Entries {
		fmt.Fprintf(w, "  %s %10d %s %s\n", e.FileMode(), e.SizeBytes, e.Name, e.Device)
	}
	if v.Initrd.Identity != nil {
		fmt.Fprintf(w, "workload %s\n", v.Initrd.Identity.WorkloadID)
	}
	if v.Initrd.Problem != "" {
		fmt.Fprintf(w, "initrd not listed: %s\n", v.Initrd.Problem)
	}
	return nil
}
