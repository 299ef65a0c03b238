package main

import (
	"encoding/hex"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// krunMachine is libkrun's, or the simulator's.
type krunMachine struct {
	tee    kbs.TEE
	bundle *firmware.Bundle
	initrd []byte // as given; nil for the firmware's own
}

func newKrunMachine(c *cli.Context, tee kbs.TEE) (*krunMachine, error) {
	for _, name := range []string{"kernel", "append", "vcpu-type", "guest-features", "event-log"} {
		if c.IsSet(name) {
			return nil, usage("--%s: only with --vmm qemu", name)
		}
	}
	m := &krunMachine{tee: tee}
	var err error
	if m.bundle, err = loadFirmware(c.String("firmware"), tee); err != nil {
		return nil, err
	}
	if file := c.String("initrd"); file != "" {
		if m.initrd, err = readBounded(file, firmware.MaxInitrdBytes); err != nil {
			return nil, err
		}
		if len(m.initrd) == 0 {
			return nil, usage("--initrd %s: the file is empty", file)
		}
	}
	return m, nil
}

func (m *krunMachine) about() measuredFirmware {
	return measuredFirmware{Path: m.bundle.Path, Kind: m.bundle.Kind, SHA256: hex.EncodeToString(m.bundle.Digest[:])}
}

func (m *krunMachine) inputs() (measure.Inputs, error) { return measure.FromBundle(m.bundle, m.initrd) }

// variants are the firmware's own initrd, the initrd without its padding, and
// another installed library.
func (m *krunMachine) variants() ([]measure.Variant, error) {
	in, err := measure.FromBundle(m.bundle, m.initrd)
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
	case err != nil && !errors.As(err, new(hinter)):
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
