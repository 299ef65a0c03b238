package main

import (
	"encoding/hex"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload"
)

// krunMachine is libkrun's, or the simulator's.
type krunMachine struct {
	tee    kbs.TEE
	bundle *firmware.Bundle
	initrd []byte // as given; nil for the firmware's own
	acpi   bool   // the host's ACPI code is allowed
}

// newKrunMachine takes initrd, or --initrd if that is nil.
func newKrunMachine(c *cli.Context, tee kbs.TEE, initrd []byte) (*krunMachine, error) {
	for _, name := range []string{"kernel", "append", "vcpu-type", "guest-features", "event-log"} {
		if c.IsSet(name) {
			return nil, face.Usagef("--%s: only with --vmm qemu and an OVMF file for --firmware", name)
		}
	}
	m := &krunMachine{tee: tee, initrd: initrd, acpi: c.Bool("allow-acpi")}
	var err error
	if m.bundle, err = loadFirmware(c.String("firmware"), tee); err != nil {
		return nil, err
	}
	if c.String("vmm") == krun.VMMQEMU && m.bundle.Kind != firmware.KindOVMF {
		return nil, hint.With(face.Usagef("firmware %s is of kind %s, expected %s for --vmm qemu", m.bundle.Path, m.bundle.Kind, firmware.KindOVMF), "`ccrun firmware compose` makes it")
	}
	if m.acpi && m.bundle.Kind == firmware.KindLibkrun {
		return nil, face.Usagef("--allow-acpi: libkrun's machines have no ACPI, and need none")
	}
	if file := c.String("initrd"); file != "" {
		if m.initrd, err = bounded.File(file, firmware.MaxInitrdBytes); err != nil {
			return nil, err
		}
		if len(m.initrd) == 0 {
			return nil, face.Usagef("--initrd %s: the file is empty", file)
		}
	}
	return m, nil
}

// fromImage takes from --image what the command line does not say, and returns
// the image's initrd; nil without --image. The image is not trusted: what it
// says changes the digest printed, and nothing else.
func (m *measuring) fromImage(c *cli.Context) ([]byte, error) {
	name := c.String("image")
	if name == "" {
		return nil, nil
	}
	if c.IsSet("initrd") {
		return nil, face.Usagef("--image and --initrd: one of them")
	}
	in, err := workload.Inspect(imageContext(c), systemContext(c), name, nil)
	if err != nil {
		return nil, buildError(err)
	}
	if in.Initrd == nil || len(in.Initrd.Content) == 0 || in.TEEConfig == nil {
		return nil, fmt.Errorf("%s is no workload image: it has no initrd or no %s", name, krun.TEEConfigFile)
	}
	if !c.IsSet("tee") {
		m.tee = in.TEEConfig.TEE
	}
	if !c.IsSet("cpus") {
		m.shape.CPUs = uint(in.TEEConfig.CPUs)
	}
	if !c.IsSet("memory") {
		m.shape.MemoryMiB = in.TEEConfig.MemoryMiB
	}
	return in.Initrd.Content, nil
}

func (m *krunMachine) about() measuredFirmware {
	return measuredFirmware{Path: m.bundle.Path, Kind: m.bundle.Kind, SHA256: hex.EncodeToString(m.bundle.Digest[:])}
}

func (m *krunMachine) inputs() (measure.Inputs, error) {
	in, err := measure.FromBundle(m.bundle, m.initrd)
	in.AllowACPI = m.acpi
	return in, err
}

// variants are the firmware's own initrd, the initrd without its padding, and
// another installed library.
func (m *krunMachine) variants() ([]measure.Variant, error) {
	in, err := m.inputs()
	if err != nil {
		return nil, err
	}
	list := []measure.Variant{{Inputs: in}}
	if m.bundle.Kind != firmware.KindLibkrun {
		base := in
		base.Initrd = m.bundle.InitrdBase
		return append(list, measure.Variant{Name: "initrd (only the firmware's modules)", Inputs: base}), nil
	}
	if m.initrd != nil {
		own, short := in, in
		own.Initrd, short.Initrd = m.bundle.Initrd, m.initrd
		list = append(list, measure.Variant{Name: "initrd (the firmware's own: it is unpatched)", Inputs: own},
			measure.Variant{Name: "initrd (not padded to 64 KiB)", Inputs: short})
	}
	other, err := loadFirmware("", m.tee)
	switch {
	case err == nil && other.Digest != m.bundle.Digest:
		if in, err := measure.FromBundle(other, m.initrd); err == nil {
			list = append(list, measure.Variant{Name: "firmware (" + other.Path + ")", Inputs: in})
		}
	case err != nil && hint.Of(err) == "":
		return nil, err
	}
	return list, nil
}

// loadFirmware reads path, or the installed library if it is empty.
func loadFirmware(path string, tee kbs.TEE) (*firmware.Bundle, error) {
	if path == "" {
		var err error
		if path, err = firmware.SystemSearch().Find(tee); err != nil {
			return nil, err
		}
	}
	return firmware.Load(path)
}
