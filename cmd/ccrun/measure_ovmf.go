package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// ovmfMachine is QEMU's with OVMF.
type ovmfMachine struct {
	info measuredFirmware
	in   measure.Inputs
	tee  kbs.TEE
}

func newOVMFMachine(c *cli.Context, tee kbs.TEE) (*ovmfMachine, error) {
	if tee == kbs.Sample {
		return nil, face.Usagef("--tee sample: QEMU's machines with OVMF are of TEE snp or tdx; the simulator is a --vmm krun")
	}
	for name, only := range map[string]kbs.TEE{"vcpu-type": kbs.SNP, "guest-features": kbs.SNP, "allow-acpi": kbs.SNP, "event-log": kbs.TDX} {
		if c.IsSet(name) && tee != only {
			return nil, face.Usagef("--%s: only with --tee %s", name, only)
		}
	}
	if c.IsSet("image") {
		return nil, face.Usagef("--image: only with --vmm krun, which is what workload images are for")
	}
	path := c.String("firmware")
	if path == "" {
		return nil, face.Usagef("--vmm qemu needs --firmware, an OVMF.fd file")
	}
	image, err := bounded.File(path, firmware.MaxOVMFBytes)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(image)
	m := &ovmfMachine{tee: tee, info: measuredFirmware{Path: path, Kind: firmware.KindOVMF, SHA256: hex.EncodeToString(sum[:])}}
	if m.in.OVMF, err = firmware.ParseOVMF(image); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return m, m.readParts(c)
}

func (m *ovmfMachine) readParts(c *cli.Context) error {
	var err error
	for _, part := range []struct {
		flag  string
		limit int64
		to    *[]byte
	}{{"kernel", firmware.MaxKernelBytes, &m.in.Kernel}, {"initrd", firmware.MaxInitrdBytes, &m.in.Initrd}} {
		file := c.String(part.flag)
		if file == "" {
			continue
		}
		if *part.to, err = bounded.File(file, part.limit); err != nil {
			return err
		}
		if len(*part.to) == 0 {
			return face.Usagef("--%s %s: the file is empty", part.flag, file)
		}
	}
	m.in.Cmdline, m.in.AllowACPI = c.String("append"), c.Bool("allow-acpi")
	if m.tee == kbs.SNP {
		m.in.GuestFeatures = c.Uint64("guest-features")
		if m.in.CPUSignature, err = measure.ParseCPU(c.String("vcpu-type")); err != nil {
			return face.WithStatus(face.Misused, fmt.Errorf("--vcpu-type: %w", err))
		}
	}
	if file := c.String("event-log"); file != "" {
		b, err := bounded.File(file, eventlog.MaxLogBytes)
		if err != nil {
			return err
		}
		if m.in.EventLog, err = eventlog.Parse(b); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return nil
}

func (m *ovmfMachine) about() measuredFirmware         { return m.info }
func (m *ovmfMachine) inputs() (measure.Inputs, error) { return m.in, nil }

// variants are machines without the initrd, the command line or all hashes,
// and for SNP other CPU models and features.
func (m *ovmfMachine) variants() ([]measure.Variant, error) {
	list := []measure.Variant{{Inputs: m.in}}
	add := func(name string, change func(*measure.Inputs)) {
		in := m.in
		in.AllowACPI = true // what a host boots by mistake, it may
		change(&in)
		list = append(list, measure.Variant{Name: name, Inputs: in})
	}
	if len(m.in.Initrd) != 0 {
		add("initrd (none)", func(in *measure.Inputs) { in.Initrd = nil })
	}
	if m.tee != kbs.SNP {
		return list, nil
	}
	if m.in.Cmdline != "" {
		add("command line (none)", func(in *measure.Inputs) { in.Cmdline = "" })
	}
	if len(m.in.Kernel) != 0 {
		add("kernel (not hashed: kernel-hashes=off)", func(in *measure.Inputs) { in.Kernel, in.Initrd, in.Cmdline = nil, nil, "" })
	}
	seen := map[uint32]bool{m.in.CPUSignature: true}
	for _, model := range measure.CPUModels() {
		signature, err := measure.ParseCPU(model)
		if err != nil {
			return nil, err
		}
		if !seen[signature] {
			add("CPU model ("+model+")", func(in *measure.Inputs) { in.CPUSignature = signature })
		}
		seen[signature] = true
	}
	for _, features := range []uint64{1, 0x21} {
		if features != m.in.GuestFeatures {
			add(fmt.Sprintf("guest features (%#x)", features), func(in *measure.Inputs) { in.GuestFeatures = features })
		}
	}
	return list, nil
}
