package krun

import (
	"encoding/hex"
	"fmt"
	"slices"

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
	maxDiskBytes = VolumesOffset
)

// Hints is HintsFile's content, in canonical JSON. Like the labels it is the
// host's to change, for early and clear errors and for convenience; nothing
// that must hold depends on it.
type Hints struct {
	Version  int      `json:"version"`  // 4 with Profile, 3 with Volumes, 2 with DiskBytes, else 1
	Firmware string   `json:"firmware"` // as LabelFirmware
	Ports    []string `json:"ports"`    // on which the workload may listen: "80/tcp"
	// Profile is the one whose measurement is registered, of an image for QEMU:
	// HintQEMUSNP or HintQEMUTDX. It decides which VMM a launch takes. Empty:
	// libkrun, or the simulator.
	Profile string `json:"profile,omitempty"`
	// DiskBytes is how long a launch makes the container's disk.img: the guest
	// writes behind the image. 0: it leaves it as it is.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// Volumes is for a workload whose volume file takes the place of disk.img.
	Volumes *VolumeHints `json:"volumes,omitempty"`
}

// The values of Hints.Profile, as of krun/measure's.
const (
	HintQEMUSNP = "qemu-snp"
	HintQEMUTDX = "qemu-tdx"
)

// ScratchBytes is DiskBytes, less for who has a volume file, which has the room.
func (h *Hints) ScratchBytes() int64 {
	if h.Volumes != nil {
		return 0
	}
	return h.DiskBytes
}

// Encode is h as HintsFile has it. Ports beyond MaxHintedPorts are left out.
func (h Hints) Encode() ([]byte, error) {
	h.Version = h.version()
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

// version is the oldest whose runtimes can do what h wants: others refuse it, as
// the guest would be without scratch, or without its volumes.
func (h *Hints) version() int {
	switch {
	case h.Profile != "":
		return 4
	case h.Volumes != nil:
		return 3
	case h.DiskBytes != 0:
		return 2
	}
	return 1
}

func (h *Hints) validate() error {
	if h.Version < 1 || h.Version > 4 {
		return fmt.Errorf("/%s has version %d, expected 1 to 4: is ccrun on this host older than the image?", HintsFile, h.Version)
	}
	if err := h.Volumes.validate(); err != nil {
		return err
	}
	if p := h.Profile; p != "" && p != HintQEMUSNP && p != HintQEMUTDX {
		return fmt.Errorf("/%s names profile %.40q, expected %s, %s or none", HintsFile, p, HintQEMUSNP, HintQEMUTDX)
	}
	if h.Version != h.version() || h.DiskBytes < 0 || h.DiskBytes > maxDiskBytes || h.DiskBytes%FooterAlign != 0 {
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

// VolumeHints are what a launch needs to know of volumes: see Hints.
type VolumeHints struct {
	Workload  string   `json:"workload"` // names the volume file
	FileBytes int64    `json:"file_bytes"`
	Names     []string `json:"names"`
}

func (h *VolumeHints) validate() error {
	switch {
	case h == nil:
		return nil
	case !kbs.ValidWorkloadID(h.Workload):
		return fmt.Errorf("/%s names volumes of workload %.70q", HintsFile, h.Workload)
	case h.FileBytes <= VolumesOffset || h.FileBytes > VolumesOffset+MaxVolumes*VolumeStride || h.FileBytes%FooterAlign != 0:
		return fmt.Errorf("/%s wants a volume file of %d bytes, expected a multiple of %d from %d to %d",
			HintsFile, h.FileBytes, FooterAlign, int64(VolumesOffset)+FooterAlign, int64(VolumesOffset+MaxVolumes*VolumeStride))
	case len(h.Names) == 0 || len(h.Names) > MaxVolumes || slices.ContainsFunc(h.Names, func(n string) bool { return !kbs.ValidVolumeName(n) }):
		return fmt.Errorf("/%s names volumes %.200q, expected 1 to %d names", HintsFile, h.Names, MaxVolumes)
	}
	return nil
}
