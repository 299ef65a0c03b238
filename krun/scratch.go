package krun

import (
	"fmt"

	"github.com/ccrun/ccrun/luks"
)

// ScratchKind is where a workload's writes go.
type ScratchKind string

// The kinds of scratch.
const (
	// ScratchDisk: to an area that the runtime adds behind the image in the
	// container's own copy of disk.img, under a key drawn in the TEE.
	ScratchDisk ScratchKind = "disk"
	// ScratchMemory: nowhere but the guest's memory.
	ScratchMemory ScratchKind = "memory"
	// ScratchNone: the root cannot be written.
	ScratchNone ScratchKind = "none"
)

// What becomes of a scratch area that does not open.
const (
	DamagedReplace = "replace" // a new, empty one takes its place
	DamagedRefuse  = "refuse"  // the workload does not start
)

// Bounds of Scratch.Bytes. BTRFS wants more than 100 MiB of a second device;
// the file is sparse, so the upper bound costs the host nothing by itself.
const (
	MinScratchBytes = 128 << 20
	MaxScratchBytes = 1 << 40
)

// Scratch is measured: what the owner has decided about the workload's writes.
// The zero value is refused.
type Scratch struct {
	Kind ScratchKind `json:"kind"`
	// Bytes is the plaintext size of a ScratchDisk, a multiple of 4096.
	Bytes int64 `json:"bytes,omitempty"`
	// Damaged is DamagedReplace or DamagedRefuse, with a ScratchDisk alone.
	Damaged string `json:"damaged,omitempty"`
}

// Validate refuses what a guest with a disk of this file system cannot do.
func (s Scratch) Validate(filesystem string) error {
	switch s.Kind {
	case ScratchMemory, ScratchNone:
		if s.Bytes != 0 || s.Damaged != "" {
			return fmt.Errorf("scratch %q of %d bytes (if damaged: %q), expected neither size nor rule", s.Kind, s.Bytes, s.Damaged)
		}
		return nil
	case ScratchDisk:
	default:
		return fmt.Errorf("scratch %.40q, expected disk, memory or none", s.Kind)
	}
	switch {
	case filesystem != "btrfs":
		return fmt.Errorf("scratch on disk with file system %s, expected btrfs", filesystem)
	case s.Bytes < MinScratchBytes || s.Bytes > MaxScratchBytes || s.Bytes%FooterAlign != 0:
		return fmt.Errorf("scratch of %d bytes, expected a multiple of %d from %d to %d", s.Bytes, FooterAlign, MinScratchBytes, int64(MaxScratchBytes))
	case s.Damaged != DamagedReplace && s.Damaged != DamagedRefuse:
		return fmt.Errorf("damaged scratch: %.40q, expected replace or refuse", s.Damaged)
	}
	return nil
}

// String says it to people.
func (s Scratch) String() string {
	switch s.Kind {
	case ScratchDisk:
		return fmt.Sprintf("scratch of %d MiB beside it on disk; if damaged: %s", s.Bytes>>20, s.Damaged)
	case ScratchMemory:
		return "written to in memory"
	case ScratchNone:
		return "read-only"
	}
	return "written to under the key of all its instances (version 1)"
}

// Geometry lays out a ScratchDisk beside an image, with the image's cipher. Its
// header is in the DataOffsetBytes in front of the data.
func (s Scratch) Geometry(image luks.Geometry) (luks.Geometry, error) {
	return luks.ScratchGeometry(image, s.Bytes)
}

// Filesystems are what a disk may hold.
func Filesystems() []string { return []string{"btrfs", "erofs", "ext4"} }
