package luks

import (
	"bytes"
	"errors"
	"testing"
)

// readSector reads one sector through the user-space reader.
func readSector(t *testing.T, disk []byte, g Geometry, vk *VolumeKey, plainOff int64) ([]byte, error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(disk), g, vk)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, g.SectorBytes)
	_, err = r.ReadAt(b, plainOff)
	return b, err
}

func TestTamperingIsSeen(t *testing.T) {
	g := mustGeometry(t, 5<<20, true)
	g.Integrity.Log2InterleaveSectors = 10 // 512 KiB: several runs
	vk, plain := mustKey(t, g), plaintext(5<<20)
	disk := mustDisk(t, g, vk, plain)
	l, base := g.layout(), g.DataOffsetBytes
	sector := func(d []byte, off int64) []byte { return d[base+l.dataOffset(off):][:g.SectorBytes] }
	tag := func(d []byte, off int64) []byte { return d[base+l.tagOffset(off):][:macTagBytes] }
	const a, b = 3 * 4096, 2<<20 + 7*4096
	swap := func(x, y []byte) {
		z := bytes.Clone(x)
		copy(x, y)
		copy(y, z)
	}
	for name, change := range map[string]func(d []byte){
		"data flipped":              func(d []byte) { sector(d, a)[4095] ^= 0x80 },
		"tag flipped":               func(d []byte) { tag(d, a)[31] ^= 1 },
		"tag zeroed":                func(d []byte) { clear(tag(d, a)) },
		"sector zeroed":             func(d []byte) { clear(sector(d, a)); clear(tag(d, a)) },
		"sectors swapped":           func(d []byte) { swap(sector(d, a), sector(d, b)) },
		"sectors and tags swapped":  func(d []byte) { swap(sector(d, a), sector(d, b)); swap(tag(d, a), tag(d, b)) },
		"neighbour with tag copied": func(d []byte) { copy(sector(d, a), sector(d, a+4096)); copy(tag(d, a), tag(d, a+4096)) },
	} {
		d := bytes.Clone(disk)
		change(d)
		if got, err := readSector(t, d, g, vk, a); !errors.Is(err, ErrIntegrity) || bytes.Equal(got, plain[a:a+4096]) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := readSector(t, d, g, vk, a+8192); err != nil || !bytes.Equal(got, plain[a+8192:a+12288]) {
			t.Errorf("%s: innocent sector: %v", name, err)
		}
	}
	wrong := &VolumeKey{b: bytes.Clone(vk.b)}
	wrong.b[95] ^= 1
	if _, err := readSector(t, disk, g, wrong, 0); !errors.Is(err, ErrIntegrity) {
		t.Errorf("wrong integrity key: %v", err)
	}
	moved := g // the same disk read with another measured layout
	i := *g.Integrity
	i.Log2InterleaveSectors = 11
	moved.Integrity = &i
	if _, err := readSector(t, disk, moved, vk, b); !errors.Is(err, ErrIntegrity) {
		t.Errorf("other interleave: %v", err)
	}
}
