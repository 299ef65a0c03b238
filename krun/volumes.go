package krun

import (
	"fmt"
	"path"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/luks"
)

// Where volumes are. A guest has one disk, since libkrun gives its guests no
// more: a file of its own, the volume file, takes the place of the container's
// disk.img. It begins with a copy of that (image and scratch), for which it
// leaves a hole, and has the area of each volume at a place that neither the
// image nor other volumes move. The file is sparse: holes cost a host nothing.
const (
	// VolumesOffset is where the first area begins: behind any image with any
	// scratch area.
	VolumesOffset = 2 << 40
	// VolumeStride is from one area to the next.
	VolumeStride = 1 << 40
	// MaxVolumes is how many areas there are.
	MaxVolumes = 8
)

// Bounds of Volume.Bytes: BTRFS wants more than 100 MiB, and an area has room for
// its tags as well.
const (
	MinVolumeBytes     = 128 << 20
	MaxVolumeBytes     = 960 << 30
	DefaultVolumeBytes = 8 << 30
)

// Volume is measured: a directory whose content outlives the container.
type Volume struct {
	Name string `json:"name"`
	Path string `json:"path"` // where the workload sees it
	// Bytes is its plaintext size, a multiple of 4096. It may grow with a new
	// image, and never shrinks.
	Bytes int64 `json:"bytes"`
	// Slot is the number of its area in the volume file.
	Slot     int  `json:"slot"`
	ReadOnly bool `json:"read_only,omitempty"` // for the workload
}

// Geometry lays out a volume's area, with the cipher of the image.
func (v Volume) Geometry(image luks.Geometry) (luks.Geometry, error) {
	return luks.VolumeGeometry(image, v.Bytes)
}

// Start is where in the volume file its area begins.
func (v Volume) Start() int64 { return VolumesOffset + int64(v.Slot)*VolumeStride }

// End is behind its data, should it be of that many bytes and in the first half.
func (v Volume) End(bytes int64) int64 {
	const tags = 32 // at most 1/32 of the content is tags, journal and header
	return v.Start() + bytes + bytes/tags + (16 << 20)
}

// Half is where in the volume file its data is: at its Start, or in the other half
// of its area, where a rekeyed volume is every other time.
func (v Volume) Half(half int) int64 { return v.Start() + int64(half)*VolumeStride/2 }

func (v Volume) validate() error {
	switch {
	case !kbs.ValidVolumeName(v.Name):
		return fmt.Errorf("volume name %.70q, expected up to 63 letters, digits, '.', '_', '-', the first a letter or digit", v.Name)
	case !path.IsAbs(v.Path) || path.Clean(v.Path) != v.Path || v.Path == "/" || len(v.Path) > 1024 || strings.ContainsRune(v.Path, 0):
		return fmt.Errorf("volume %s at %.70q, expected a clean absolute path below /", v.Name, v.Path)
	case v.Bytes < MinVolumeBytes || v.Bytes > MaxVolumeBytes || v.Bytes%FooterAlign != 0:
		return fmt.Errorf("volume %s of %d bytes, expected a multiple of %d from %d to %d", v.Name, v.Bytes, FooterAlign, MinVolumeBytes, int64(MaxVolumeBytes))
	case v.Slot < 0 || v.Slot >= MaxVolumes:
		return fmt.Errorf("volume %s in slot %d, expected 0 to %d", v.Name, v.Slot, MaxVolumes-1)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run/ccrun", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		if below(v.Path, dir) || below(dir, v.Path) && dir != "/run/ccrun" && !strings.HasPrefix(dir, "/etc/") {
			return fmt.Errorf("volume %s at %s, which is the guest's own", v.Name, v.Path)
		}
	}
	return nil
}

func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// ValidateVolumes refuses volumes of which two would be in the same place.
func ValidateVolumes(all []Volume) error {
	if len(all) > MaxVolumes {
		return fmt.Errorf("%d volumes, at most %d allowed", len(all), MaxVolumes)
	}
	for i, v := range all {
		if err := v.validate(); err != nil {
			return err
		}
		for _, o := range all[:i] {
			switch {
			case o.Name == v.Name:
				return fmt.Errorf("two volumes named %s", v.Name)
			case o.Slot == v.Slot:
				return fmt.Errorf("volumes %s and %s in slot %d", o.Name, v.Name, v.Slot)
			case below(o.Path, v.Path) || below(v.Path, o.Path):
				return fmt.Errorf("volume %s at %s, in or around volume %s at %s", v.Name, v.Path, o.Name, o.Path)
			}
		}
	}
	return nil
}

// VolumeFileBytes is how long the volume file of a launch must be; 0 without
// volumes.
func VolumeFileBytes(all []Volume, image luks.Geometry) (n int64, err error) {
	for _, v := range all {
		g, err := v.Geometry(image)
		if err != nil {
			return 0, err
		}
		if g.TotalBytes() > VolumeStride {
			return 0, fmt.Errorf("volume %s takes %d bytes, at most %d allowed", v.Name, g.TotalBytes(), int64(VolumeStride))
		}
		n = max(n, v.Start()+g.TotalBytes())
	}
	return n, nil
}

// VolumeMagic begins an area that was taken into use. A header follows that says
// whose it is, to people and to guests that find another's; nothing trusts it.
const VolumeMagic = "ccrun volume v1\x00"

// VolumeHeaderBytes is the length of magic and header: the rest is zero.
const VolumeHeaderBytes = 4096

// VolumeHeader is the JSON behind VolumeMagic, canonical.
type VolumeHeader struct {
	Workload string `json:"workload"`
	Name     string `json:"name"`
	Cipher   string `json:"cipher"`
	Bytes    int64  `json:"bytes"` // as the area is laid out
	// Half, 0 or 1, has the data; see Volume.Half. While Rekeying it is perhaps in
	// the other one already.
	Half     int  `json:"half,omitempty"`
	Rekeying bool `json:"rekeying,omitempty"`
}

// Encode is the header's VolumeHeaderBytes.
func (h VolumeHeader) Encode() ([]byte, error) {
	js, err := kbs.Canonical(h)
	if err != nil {
		return nil, err
	}
	b := make([]byte, VolumeHeaderBytes)
	if n := copy(b, VolumeMagic); copy(b[n:], js) < len(js) {
		return nil, fmt.Errorf("volume header of %d bytes", len(js))
	}
	return b, nil
}

// DecodeVolumeHeader parses what Encode wrote. ok is false for an area that was
// never used: all zero.
func DecodeVolumeHeader(b []byte) (h VolumeHeader, ok bool, err error) {
	if len(b) != VolumeHeaderBytes {
		return h, false, fmt.Errorf("volume header of %d bytes, expected %d", len(b), VolumeHeaderBytes)
	}
	text := strings.TrimRight(string(b), "\x00")
	if text == "" {
		return h, false, nil
	}
	js, found := strings.CutPrefix(text, VolumeMagic)
	if !found {
		return h, false, fmt.Errorf("no volume header")
	}
	if err := kbs.UnmarshalCanonical([]byte(js), &h); err != nil {
		return VolumeHeader{}, false, fmt.Errorf("decoding volume header: %w", err)
	}
	if !kbs.ValidWorkloadID(h.Workload) || !kbs.ValidVolumeName(h.Name) || len(h.Cipher) > 64 || h.Bytes < MinVolumeBytes || h.Bytes > MaxVolumeBytes || h.Half < 0 || h.Half > 1 {
		return VolumeHeader{}, false, fmt.Errorf("volume header of workload %.40q, volume %.40q, %d bytes", h.Workload, h.Name, h.Bytes)
	}
	return h, true, nil
}
