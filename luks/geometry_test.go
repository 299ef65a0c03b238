package luks

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestGeometryAllowList(t *testing.T) {
	var zero Geometry
	if zero.Validate() == nil {
		t.Error("the zero geometry is accepted")
	}
	for name, change := range map[string]func(*Geometry){
		"no uuid":           func(g *Geometry) { g.UUID = "" },
		"upper-case uuid":   func(g *Geometry) { g.UUID = strings.ToUpper(g.UUID) },
		"null cipher":       func(g *Geometry) { g.Cipher = "cipher_null-ecb" },
		"cbc":               func(g *Geometry) { g.Cipher = "aes-cbc-essiv:sha256" },
		"short key":         func(g *Geometry) { g.VolumeKeyBytes = 64 },
		"no key":            func(g *Geometry) { g.VolumeKeyBytes = 0 },
		"1024 sectors":      func(g *Geometry) { g.SectorBytes = 1024 },
		"negative offset":   func(g *Geometry) { g.DataOffsetBytes = -4096 },
		"offset in header":  func(g *Geometry) { g.DataOffsetBytes = 32 << 10 },
		"unaligned offset":  func(g *Geometry) { g.DataOffsetBytes += 512 },
		"huge offset":       func(g *Geometry) { g.DataOffsetBytes = 1 << 60 },
		"no content":        func(g *Geometry) { g.PlainBytes = 0 },
		"unaligned content": func(g *Geometry) { g.PlainBytes += 512 },
		"huge content":      func(g *Geometry) { g.PlainBytes = 1 << 62 },
		"integrity dropped": func(g *Geometry) { g.Integrity = nil },
		"other integrity":   func(g *Geometry) { g.Integrity.Algorithm = "crc32c" },
		"short tags":        func(g *Geometry) { g.Integrity.TagBytes = 4 },
		"no journal":        func(g *Geometry) { g.Integrity.JournalSections = 0 },
		"huge journal":      func(g *Geometry) { g.Integrity.JournalSections = 1 << 30 },
		"tiny interleave":   func(g *Geometry) { g.Integrity.Log2InterleaveSectors = 2 },
		"huge interleave":   func(g *Geometry) { g.Integrity.Log2InterleaveSectors = 31 },
	} {
		g := mustGeometry(t, 1<<20, true)
		change(&g)
		if g.Validate() == nil || g.TotalBytes() != 0 {
			t.Errorf("%s is accepted: %+v", name, g)
		}
	}
}

func TestNewGeometry(t *testing.T) {
	if _, err := NewGeometry(testUUID, 4095, AESXTS, true); err == nil {
		t.Error("unaligned content accepted")
	}
	for _, n := range []int64{4096, 1 << 20, 700 << 20, 1 << 40} {
		g := mustGeometry(t, n, true)
		l := g.layout()
		if over := g.TotalBytes() - n; over < 0 || over > 6<<20+n/100 {
			t.Errorf("%d bytes of content cost %d more", n, over)
		}
		// The kernel computes the number of data sectors from the device's length
		// (get_provided_data_sectors); it must find exactly ours.
		if l.dataOffset(n) < g.SegmentBytes() {
			t.Errorf("%d: room for more sectors than the superblock says", n)
		}
	}
}

func TestVolumeKeyNeverPrints(t *testing.T) {
	vk := &VolumeKey{b: []byte("hunter2 hunter2")}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "k", vk, "v", *vk)
	out := fmt.Sprintf("%v %s %x %#v %+v %d %v %+v", vk, vk, vk, vk, vk, vk, *vk, struct{ K *VolumeKey }{vk}) + log.String()
	if strings.Contains(out, "hunter2") || strings.Contains(out, "104 117") || strings.Contains(out, "68756e") {
		t.Fatalf("key printed: %s", out)
	}
	inner := vk.b
	vk.Wipe()
	if inner[0] != 0 {
		t.Fatal("not wiped")
	}
	g := mustGeometry(t, 4096, true)
	if vk.check(&g) == nil || (*VolumeKey)(nil).check(&g) == nil || (&VolumeKey{}).check(&g) == nil {
		t.Fatal("wiped, nil or zero key accepted")
	}
}
