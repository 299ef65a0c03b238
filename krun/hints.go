package krun

import (
	"encoding/hex"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// HintsFile is in the layer of a workload image beside the files that crun
// looks for: what a launch needs of the labels. Podman from 4.5.1 on hands a
// runtime no annotations of an image, and `podman save` and `kube play` lose
// them on the way.
const HintsFile = "ccrun.json"

const (
	// MaxHintsBytes bounds HintsFile.
	MaxHintsBytes = 64 << 10
	// MaxHintedPorts bounds the ports in it.
	MaxHintedPorts = 2048
	// maxDiskBytes bounds what an image can make a host's file long: an image and
	// the largest scratch area.
	maxDiskBytes = 2 << 40
)

// Hints is HintsFile's content, in canonical JSON. Like the labels it is the
// host's to change, for early and clear errors and for convenience; nothing
// that must hold depends on it.
type Hints struct {
	Version  int      `json:"version"`  // 2 with DiskBytes, else 1
	Firmware string   `json:"firmware"` // as LabelFirmware
	Ports    []string `json:"ports"`    // on which the workload may listen: "80/tcp"
	// DiskBytes is how long a launch makes the container's disk.img: the guest
	// writes behind the image. 0: it leaves it as it is.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
}

// Encode is h as HintsFile has it. Ports beyond MaxHintedPorts are left out.
func (h Hints) Encode() ([]byte, error) {
	h.Version = 1
	if h.DiskBytes != 0 {
		h.Version = 2 // older runtimes refuse it: the guest would be without scratch
	}
	h.Ports = append([]string{}, h.Ports[:min(len(h.Ports), MaxHintedPorts)]...)
	if err := h.validate(); err != nil {
		return nil, err
	}
	return kbs.Canonical(h)
}

// DecodeHints parses what Encode wrote, refusing everything else.
func DecodeHints(b []byte) (*Hints, error) {
	if len(b) > MaxHintsBytes {
		return nil, fmt.Errorf("/%s of %d bytes, at most %d allowed", HintsFile, len(b), MaxHintsBytes)
	}
	var h Hints
	if err := kbs.UnmarshalCanonical(b, &h); err != nil {
		return nil, fmt.Errorf("decoding /%s: %w", HintsFile, err)
	}
	if err := h.validate(); err != nil {
		return nil, err
	}
	return &h, nil
}

func (h *Hints) validate() error {
	if h.Version != 1 && h.Version != 2 {
		return fmt.Errorf("/%s has version %d, expected 1 or 2: is ccrun on this host older than the image?", HintsFile, h.Version)
	}
	if (h.Version == 2) != (h.DiskBytes != 0) || h.DiskBytes < 0 || h.DiskBytes > maxDiskBytes || h.DiskBytes%FooterAlign != 0 {
		return fmt.Errorf("/%s of version %d wants a disk of %d bytes, expected a multiple of %d up to %d, from version 2 on", HintsFile, h.Version, h.DiskBytes, FooterAlign, int64(maxDiskBytes))
	}
	if b, err := hex.DecodeString(h.Firmware); err != nil || len(b) != 32 {
		return fmt.Errorf("/%s names firmware %.80q, expected a SHA-256 of 64 hex digits", HintsFile, h.Firmware)
	}
	if h.Ports == nil || len(h.Ports) > MaxHintedPorts {
		return fmt.Errorf("/%s has no list of ports, or one of more than %d", HintsFile, MaxHintedPorts)
	}
	for _, p := range h.Ports {
		if len(p) == 0 || len(p) > len("65535/sctp") {
			return fmt.Errorf("/%s lists port %.40q", HintsFile, p)
		}
	}
	return nil
}
