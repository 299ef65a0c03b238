// Package qemu is the monitor of a workload's machine with SNP or TDX under QEMU:
// the first process of its container. The runtime krun (package wrapper) puts it
// there, where an image is built for QEMU. Nothing that a guest trusts depends on
// it: firmware, kernel, initrd and command line are measured, and the identity's
// digest is in each report.
package qemu

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/machine"
)

// Where the runtime puts things in the monitor's container, besides package machine.
const (
	InsideBinary = "/.ccrun/ccrun"
	InsideQuotes = "/.ccrun/quotes"
)

// DefaultBootLimit is how long an agent may take to come up. OVMF, a kernel and an
// initrd take seconds; many processors and much memory to accept take longer.
const DefaultBootLimit = 5 * time.Minute

// Config is what the runtime tells the monitor, as JSON in the container.
type Config struct {
	Version     int    `json:"version"`      // 1
	ImageDir    string `json:"image_dir"`    // holds disk.img, krun-sev.json, initrd.img
	FirmwareDir string `json:"firmware_dir"` // holds firmware.json
	// FirmwareSHA256 is the digest of the firmware that the runtime looked at: the
	// directory is the host's, and what is in it may change until it is read.
	FirmwareSHA256 string         `json:"firmware_sha256"`
	QEMU           string         `json:"qemu"`             // program
	TempDir        string         `json:"temp_dir"`         // for writes that are not kept
	Quotes         string         `json:"quotes,omitempty"` // socket of the quote generation service (TDX)
	ReadOnly       bool           `json:"read_only"`        // throw away what the guest writes
	BootSeconds    uint32         `json:"boot_seconds"`     // the boot limit
	Ports          []machine.Port `json:"ports,omitempty"`
	// Warnings are for the container's log: what the runtime itself prints,
	// Podman shows only if it fails.
	Warnings []string `json:"warnings,omitempty"`
}

const maxConfigBytes = 1 << 20

// ReadConfig reads and checks the configuration at path.
func ReadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the monitor's configuration: %w", err)
	}
	defer f.Close()
	var c Config
	if err := kbs.DecodeStrict(f, maxConfigBytes, &c); err != nil {
		return nil, fmt.Errorf("reading the monitor's configuration %s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("the monitor's configuration %s: %w", path, err)
	}
	return &c, nil
}

func (c *Config) validate() error {
	switch {
	case c.Version != 1:
		return fmt.Errorf("version %d, expected 1", c.Version)
	case c.ImageDir == "" || c.FirmwareDir == "" || c.TempDir == "" || c.QEMU == "":
		return errors.New("a directory or QEMU is missing")
	case c.FirmwareSHA256 == "":
		return errors.New("no digest of the firmware")
	case c.BootSeconds == 0:
		return errors.New("no boot limit")
	}
	for _, p := range c.Ports {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	return nil
}
