package krun

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/luks"
)

func someVolume() Volume {
	return Volume{Name: "data", Path: "/var/lib/data", Bytes: MinVolumeBytes}
}

func TestVolumesAreChecked(t *testing.T) {
	if err := ValidateVolumes([]Volume{someVolume(), {Name: "b", Path: "/b", Bytes: MaxVolumeBytes, Slot: 7, ReadOnly: true}}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Volume){
		"no name":       func(v *Volume) { v.Name = "" },
		"name":          func(v *Volume) { v.Name = "../x" },
		"relative":      func(v *Volume) { v.Path = "data" },
		"unclean":       func(v *Volume) { v.Path = "/a/../b" },
		"root":          func(v *Volume) { v.Path = "/" },
		"NUL":           func(v *Volume) { v.Path = "/a\x00" },
		"of the kernel": func(v *Volume) { v.Path = "/proc/x" },
		"the devices":   func(v *Volume) { v.Path = "/dev" },
		"the agent's":   func(v *Volume) { v.Path = "/run/ccrun" },
		"small":         func(v *Volume) { v.Bytes -= 4096 },
		"odd":           func(v *Volume) { v.Bytes++ },
		"large":         func(v *Volume) { v.Bytes = MaxVolumeBytes + 4096 },
		"slot":          func(v *Volume) { v.Slot = MaxVolumes },
		"no slot":       func(v *Volume) { v.Slot = -1 },
	} {
		v := someVolume()
		if change(&v); ValidateVolumes([]Volume{v}) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, second := range map[string]Volume{
		"same name": {Name: "data", Path: "/b", Bytes: MinVolumeBytes, Slot: 1},
		"same slot": {Name: "b", Path: "/b", Bytes: MinVolumeBytes},
		"same path": {Name: "b", Path: "/var/lib/data", Bytes: MinVolumeBytes, Slot: 1},
		"within":    {Name: "b", Path: "/var/lib/data/b", Bytes: MinVolumeBytes, Slot: 1},
		"around":    {Name: "b", Path: "/var/lib", Bytes: MinVolumeBytes, Slot: 1},
	} {
		if ValidateVolumes([]Volume{someVolume(), second}) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if ValidateVolumes(make([]Volume, MaxVolumes+1)) == nil {
		t.Error("too many")
	}
}

// TestVolumeAreasDoNotMeet: the largest volume ends before the next slot, and the
// last before where ext4's files end. A larger volume begins as a smaller one.
func TestVolumeAreasDoNotMeet(t *testing.T) {
	for _, cipher := range luks.Ciphers() {
		image, err := luks.NewGeometry("00000000-0000-4000-8000-000000000000", 1<<20, cipher, true)
		if err != nil {
			t.Fatal(err)
		}
		var all []Volume
		for slot := range MaxVolumes {
			all = append(all, Volume{Name: "v", Path: "/v", Bytes: MaxVolumeBytes, Slot: slot})
		}
		n, err := VolumeFileBytes(all, image)
		if err != nil || n > VolumesOffset+MaxVolumes*VolumeStride || n > 16<<40 {
			t.Errorf("%s: %d bytes, %v", cipher, n, err)
		}
		small, err1 := someVolume().Geometry(image)
		large, err2 := all[0].Geometry(image)
		if err1 != nil || err2 != nil || *small.Integrity != *large.Integrity || small.DataOffsetBytes != large.DataOffsetBytes {
			t.Errorf("%s: %+v and %+v", cipher, small.Integrity, large.Integrity)
		}
	}
}

func TestVolumeHeader(t *testing.T) {
	h := VolumeHeader{Workload: "shop", Name: "data", Cipher: "aes-xts", Bytes: MinVolumeBytes}
	b, err := h.Encode()
	if err != nil || len(b) != VolumeHeaderBytes {
		t.Fatal(len(b), err)
	}
	if got, used, err := DecodeVolumeHeader(b); err != nil || !used || got != h {
		t.Errorf("%+v, %t, %v", got, used, err)
	}
	if _, used, err := DecodeVolumeHeader(make([]byte, VolumeHeaderBytes)); err != nil || used {
		t.Errorf("an unused area: %t, %v", used, err)
	}
	for i := range len(VolumeMagic) + 2 {
		c := bytes.Clone(b)
		c[i] ^= 1
		if _, _, err := DecodeVolumeHeader(c); err == nil {
			t.Errorf("bit of byte %d flipped", i)
		}
	}
	h.Name = strings.Repeat("x", 5000)
	if _, err := h.Encode(); err == nil {
		t.Error("a header of any length")
	}
}

func FuzzVolumeHeader(f *testing.F) {
	b, err := VolumeHeader{Workload: "shop", Name: "data", Cipher: "aes-xts", Bytes: MinVolumeBytes}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, used, err := DecodeVolumeHeader(b)
		if err != nil || !used {
			return
		}
		if again, err := h.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%+v is encoded otherwise: %v", h, err)
		}
	})
}

func TestVolumeHints(t *testing.T) {
	h := Hints{Firmware: strings.Repeat("0", 64), DiskBytes: 4096, Volumes: &VolumeHints{Workload: "shop", FileBytes: VolumesOffset + 1<<20, Names: []string{"data"}}}
	b, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeHints(b)
	if err != nil || got.Version != 3 || got.Volumes.Workload != "shop" || got.ScratchBytes() != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(*VolumeHints){
		"a path":   func(v *VolumeHints) { v.Workload = "../x" },
		"short":    func(v *VolumeHints) { v.FileBytes = VolumesOffset },
		"long":     func(v *VolumeHints) { v.FileBytes = 1 << 60 },
		"no names": func(v *VolumeHints) { v.Names = nil },
	} {
		v := *h.Volumes
		change(&v)
		if _, err := (Hints{Firmware: h.Firmware, Volumes: &v}).Encode(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
