package luks

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// TestContentIsCompared: each byte of the superblock counts, but the one that
// the kernel may raise, and so does the end of the device.
func TestContentIsCompared(t *testing.T) {
	g, _, disk := smallDisk(t, true)
	if err := checkContent(&g, Place{}, bytes.NewReader(disk)); err != nil {
		t.Fatal(err)
	}
	for i := range superblockUsedBytes {
		bad := bytes.Clone(disk)
		bad[g.DataOffsetBytes+int64(i)] ^= 1
		if err := checkContent(&g, Place{}, bytes.NewReader(bad)); (err == nil) != (i == superblockBitmapOffset) {
			t.Errorf("byte %d of the superblock changed: %v", i, err)
		}
	}
	for name, size := range map[string]int64{"one byte short": g.TotalBytes() - 1, "header only": g.DataOffsetBytes, "nothing": 0} {
		if err := checkContent(&g, Place{}, bytes.NewReader(disk[:size])); err == nil || !strings.Contains(err.Error(), "expected at least") {
			t.Errorf("%s: %v", name, err)
		}
	}
	moved := append(make([]byte, 4096), disk...)
	if err := checkContent(&g, Place{StartBytes: 4096}, bytes.NewReader(moved)); err != nil {
		t.Errorf("further in: %v", err)
	}
	if err := checkContent(&g, Place{StartBytes: 8192}, bytes.NewReader(moved)); err == nil {
		t.Error("further in than the device reaches: accepted")
	}
	plain, _, short := smallDisk(t, false)
	if err := checkContent(&plain, Place{}, bytes.NewReader(short[:plain.TotalBytes()-1])); err == nil {
		t.Error("a disk without integrity, one byte short: accepted")
	}
}

// TestChecksumIsCompared: a header whose checksum alone is wrong, in both copies,
// is none.
func TestChecksumIsCompared(t *testing.T) {
	_, _, disk := smallDisk(t, true)
	for _, at := range []int{0, minHeaderBytes} {
		disk[at+offChecksum] ^= 1
	}
	if h, err := ReadHeader(bytes.NewReader(disk), int64(len(disk))); err == nil {
		t.Errorf("read %+v", h.bin)
	}
}

// TestKeyOfAnotherLength: not one byte less or more than the geometry asks for.
func TestKeyOfAnotherLength(t *testing.T) {
	g, vk, _ := smallDisk(t, true)
	for name, k := range map[string]*VolumeKey{"none": nil, "empty": {}, "short": {b: vk.b[:len(vk.b)-1]}, "long": {b: append(bytes.Clone(vk.b), 0)}} {
		if err := k.check(&g); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := newSectorCipher(&g, k); err == nil {
			t.Errorf("%s: a cipher was made of it", name)
		}
	}
}

// TestEmptyPassphraseOpensNothing: not even a keyslot that was sealed with it.
func TestEmptyPassphraseOpensNothing(t *testing.T) {
	_, vk, disk := smallDisk(t, true)
	h, err := ReadHeader(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	k := h.meta.Keyslots["0"]
	area := make([]byte, k.Area.Size)
	newHash, err := hashByName(k.AF.Hash)
	if err != nil {
		t.Fatal(err)
	}
	stripes, err := afSplit(vk.b, newHash, bytes.NewReader(make([]byte, len(area))))
	if err != nil {
		t.Fatal(err)
	}
	copy(area, stripes)
	if err := cryptArea(area, k, nil, (*xts).encrypt); err != nil {
		t.Fatal(err)
	}
	h.areas["0"] = area
	if got, err := h.Unlock(secret.Bytes{}); err == nil {
		t.Errorf("opened: %v", got.Digest() == vk.Digest())
	}
}
