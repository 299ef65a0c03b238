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
//	spec.go      the rewriting; package crun says what stays of Podman's options
//	vmm.go       `ccrun-sim vmm`, the container's PID 1: boot, serve, exit
//	boot.go      bytes read once, measured, sealed
//	machine.go   QEMU's command line
//	network.go   the guest's network, as its firmware has it
//	qmp.go       ports, through QEMU's monitor
//	report.go    the guest's evidence port
//	control.go   the guest's control port
package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Names of the virtio-serial ports that guest and VMM share.
const (
	ReportPort  = "io.ccrun.report"
	ControlPort = "io.ccrun.control"
)

// Exit statuses as in podman-run(1).
const (
	ExitFailure = 125 // the VMM failed, or the guest ended without a word
	ExitKilled  = 137 // the VMM had to kill the guest
)

// Where the runtime puts things in the VMM's container.
const (
	insideBinary   = "/.ccrun/ccrun-sim"
	insideConfig   = "/.ccrun/vmm.json"
	insideFirmware = "/.ccrun/firmware"
	insideChip     = "/.ccrun/chip"
	insideTemp     = "/.ccrun/tmp"
	insideImage    = "/workload"
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
	Ports       []Port `json:"ports,omitempty"`
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
		if err := p.validate(); err != nil {
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
