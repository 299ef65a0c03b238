// Package sim lets workload images run where no TEE is: it PROTECTS NOTHING.
// It is an OCI runtime that puts a QEMU machine, instead of libkrun's, into
// the container that Podman asks for, and the simulated secure processor of
// package sample beside it. What is measured is honest: the launch digest is
// computed over exactly the bytes in memory that QEMU then boots. What stands for
// the hardware, QEMU and its boot ROMs, is not measured.
//
// The parts, in the order in which they act:
//
//	runtime.go   `krun-sim create`: look at the image, rewrite the spec, exec crun
//	vmm.go       `ccrun-sim vmm`, the container's PID 1: boot, serve, exit
//	boot.go      bytes read once, and measured
//	report.go    the guest's evidence port
//
// The machine is package machine's, which the production runtime uses, too.
package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/machine"
)

// Where the runtime puts things in the VMM's container, besides package machine.
const (
	insideBinary = "/.ccrun/ccrun-sim"
	insideChip   = "/.ccrun/chip"
)

// Config is what the runtime tells the VMM, as JSON in the container.
type Config struct {
	Version     int    `json:"version"`      // 1
	ImageDir    string `json:"image_dir"`    // holds disk.img, krun-sev.json, initrd.img
	FirmwareDir string `json:"firmware_dir"` // holds firmware.json
	QEMU        string `json:"qemu"`         // program
	ChipDir     string `json:"chip_dir"`     // sample.ChipDir
	TempDir     string `json:"temp_dir"`     // for writes that are not kept
	ReadOnly    bool   `json:"read_only"`    // throw away what the guest writes
	// Direct leaves OVMF, which is measured, out of the machine.
	Direct bool           `json:"direct,omitempty"`
	Ports  []machine.Port `json:"ports,omitempty"`
	// Announce has the VMM print krun.StartedLine when the workload runs.
	Announce bool `json:"announce,omitempty"`
	// Warnings are for the container's log: what the runtime itself prints,
	// Podman shows only if it fails.
	Warnings []string `json:"warnings,omitempty"`
}

const maxConfigBytes = 1 << 20

// ReadConfig reads and checks the configuration at path.
func ReadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading VMM configuration: %w", err)
	}
	defer f.Close()
	var c Config
	if err := kbs.DecodeStrict(f, maxConfigBytes, &c); err != nil {
		return nil, fmt.Errorf("reading VMM configuration %s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("VMM configuration %s: %w", path, err)
	}
	return &c, nil
}

func (c *Config) validate() error {
	switch {
	case c.Version != 1:
		return fmt.Errorf("version %d, expected 1", c.Version)
	case c.ImageDir == "" || c.FirmwareDir == "" || c.ChipDir == "" || c.TempDir == "" || c.QEMU == "":
		return errors.New("a directory or QEMU is missing")
	}
	for _, p := range c.Ports {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) write(path string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
