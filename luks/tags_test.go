package luks

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

// standardTag is what dm-crypt makes, by the standard library's HMAC.
func standardTag(macKey, sector []byte, number uint64) []byte {
	m := hmac.New(sha256.New, macKey)
	var aad [24]byte
	binary.LittleEndian.PutUint64(aad[:], number)
	binary.LittleEndian.PutUint64(aad[8:], number)
	m.Write(aad[:])
	m.Write(sector)
	return m.Sum(nil)
}

// sealBoth seals the same sectors with and without what makes 16 tags at once,
// and returns the ciphertext and both kinds of tags.
func sealBoth(t *testing.T, vk *VolumeKey, plain []byte, first uint64, sectorBytes int) (b, fast, slow []byte) {
	c, err := newXTSHMAC(vk, true)
	if err != nil {
		t.Fatal(err)
	}
	fast, slow = make([]byte, len(plain)/sectorBytes*macTagBytes), make([]byte, len(plain)/sectorBytes*macTagBytes)
	b = bytes.Clone(plain)
	c.seal(b, fast, first, sectorBytes)
	c.lanes = macLanes{}
	c.seal(bytes.Clone(plain), slow, first, sectorBytes)
	return b, fast, slow
}

func TestTagsAgainstStandard(t *testing.T) {
	vk := &VolumeKey{b: plaintext(cipherKeyBytes + macKeyBytes)}
	for _, sectorBytes := range []int{512, 4096} {
		for _, sectors := range []int{1, 15, 16, 17, 32, 47} {
			for _, first := range []uint64{0, 8, 1 << 40, 1<<64 - 8} {
				b, fast, slow := sealBoth(t, vk, plaintext(int64(sectors*sectorBytes)), first, sectorBytes)
				for i := range sectors {
					want := standardTag(vk.macKey(), b[i*sectorBytes:][:sectorBytes], first+uint64(i*sectorBytes/512))
					if got := fast[i*macTagBytes:][:macTagBytes]; !bytes.Equal(got, want) {
						t.Fatalf("sector %d of %d from %d, %d bytes each: tag %x, expected %x", i, sectors, first, sectorBytes, got, want)
					}
					if got := slow[i*macTagBytes:][:macTagBytes]; !bytes.Equal(got, want) {
						t.Fatalf("sector %d of %d from %d, %d bytes each, one by one: tag %x, expected %x", i, sectors, first, sectorBytes, got, want)
					}
				}
			}
		}
	}
}

// FuzzTags: 16 tags at once are what they are one by one, for every key,
// content and place.
func FuzzTags(f *testing.F) {
	f.Add(plaintext(96), plaintext(16*512), uint64(8))
	f.Add(make([]byte, 96), bytes.Repeat([]byte{0xff}, 33*512), uint64(1<<63))
	f.Fuzz(func(t *testing.T, volumeKey, plain []byte, first uint64) {
		if len(volumeKey) != cipherKeyBytes+macKeyBytes || len(plain) > 1<<20 {
			return
		}
		plain = plain[:len(plain)&^511]
		if _, fast, slow := sealBoth(t, &VolumeKey{b: volumeKey}, plain, first, 512); !bytes.Equal(fast, slow) {
			t.Errorf("%d sectors from %d: tags differ", len(plain)/512, first)
		}
	})
}
