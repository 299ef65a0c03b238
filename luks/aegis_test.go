package luks

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestAEGISVectors are those of the AEGIS specification, version 1.1, section 4.
func TestAEGISVectors(t *testing.T) {
	zeros := strings.Repeat("00", 16)
	for _, v := range []struct{ key, iv, ad, plain, cipher, tag string }{
		{zeros, zeros, "", zeros, "951b050fa72b1a2fc16d2e1f01b07d7e", "a7d2a99773249542f422217ee888d5f1"},
		{zeros, zeros, zeros, zeros, "10b0dee65a97d751205c128a992473a1", "46dcb9ee93c46cf13731d41b9646c131"},
		{"0001" + zeros[4:], "000002" + zeros[6:], "00010203", zeros, "2b78f5c1618da39afbb2920f5dae02b0", "74759cd0e19314650d6c635b563d80fd"},
		{"1001" + zeros[4:], "100002" + zeros[6:], "0001020304050607", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"e08ec10685d63c7364eca78ff6e1a1ddfdfc15d5311a7f2988a0471a13973fd7", "27e84b6c4cc46cb6ece8f1f3e4aa0e78"},
	} {
		for _, portable := range []bool{false, true} {
			a := mustAEGIS(t, unhex(t, v.key), portable)
			b, ad := unhex(t, v.plain), unhex(t, v.ad)
			padded := append(bytes.Clone(ad), make([]byte, (16-len(ad)%16)%16)...)
			a.start([16]byte(unhex(t, v.iv)))
			a.absorb(padded)
			a.encrypt(b)
			tag := a.finish(len(ad), len(b))
			if hex.EncodeToString(b) != v.cipher || hex.EncodeToString(tag[:]) != v.tag {
				t.Errorf("portable: %t: %x, tag %x, expected %s, %s", portable, b, tag, v.cipher, v.tag)
			}
			a.start([16]byte(unhex(t, v.iv)))
			a.absorb(padded)
			if a.decrypt(b); hex.EncodeToString(b) != v.plain || a.finish(len(ad), len(b)) != tag {
				t.Errorf("portable: %t: decrypted to %x", portable, b)
			}
		}
	}
	for _, n := range []int{0, 15, 17, 32, 96} {
		if _, err := newAEGIS(make([]byte, n)); err == nil {
			t.Errorf("key of %d bytes accepted", n)
		}
	}
}

func mustAEGIS(t *testing.T, key []byte, portable bool) *aegis {
	t.Helper()
	a, err := newAEGIS(key)
	if err != nil {
		t.Fatal(err)
	}
	if portable {
		a.fast = fastAEGIS{}
	}
	return a
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzAEGIS: assembly and portable code agree on every key, content and place,
// and open what they sealed, as long as nobody changed it.
func FuzzAEGIS(f *testing.F) {
	f.Add(plaintext(16), plaintext(4096), uint64(8), uint16(0))
	f.Add(make([]byte, 16), bytes.Repeat([]byte{0xff}, 1024), uint64(1<<63), uint16(4100))
	f.Fuzz(func(t *testing.T, key, plain []byte, sector uint64, flip uint16) {
		if len(key) != aegisKeyBytes || len(plain) < 512 || len(plain) > 1<<16 {
			return
		}
		plain = plain[:len(plain)&^511]
		sealed := [2][]byte{bytes.Clone(plain), bytes.Clone(plain)}
		var tags [2][]byte
		for i, portable := range []bool{false, true} {
			tags[i] = make([]byte, len(plain)/512*aegisTagBytes)
			mustAEGIS(t, key, portable).seal(sealed[i], tags[i], sector, 512)
		}
		if !bytes.Equal(sealed[0], sealed[1]) || !bytes.Equal(tags[0], tags[1]) {
			t.Fatalf("%d sectors from %d: assembly and portable code differ", len(plain)/512, sector)
		}
		for _, portable := range []bool{false, true} {
			a, b := mustAEGIS(t, key, portable), bytes.Clone(sealed[0][:512])
			if err := a.open(b, tags[0][:aegisTagBytes], sector); err != nil || !bytes.Equal(b, plain[:512]) {
				t.Fatalf("portable: %t: opened: %v", portable, err)
			}
			b = append(bytes.Clone(sealed[0][:512]), tags[0][:aegisTagBytes]...)
			b[int(flip)%len(b)] ^= 1 << (flip % 8)
			if err := a.open(b[:512], b[512:], sector); !errors.Is(err, ErrIntegrity) || !bytes.Equal(b[:512], make([]byte, 512)) {
				t.Fatalf("portable: %t: a bit of byte %d flipped: %v, and something is left of it", portable, int(flip)%len(b), err)
			}
		}
	})
}

func aegisGeometry(t testing.TB, n int64) Geometry {
	t.Helper()
	g, err := NewGeometry(testUUID, n, AEGIS128, true)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestAEGISDisk: a whole disk, and what a host can do to it.
func TestAEGISDisk(t *testing.T) {
	const n = 5<<20 + 4096
	g := aegisGeometry(t, n)
	vk, plain := mustKey(t, g), plaintext(n)
	disk := mustDisk(t, g, vk, plain)
	if int64(len(disk)) != g.TotalBytes() || bytes.Contains(disk, vk.b) {
		t.Fatalf("disk of %d bytes, TotalBytes says %d", len(disk), g.TotalBytes())
	}
	checkDisk(t, disk, g, vk, plain)
	if _, err := ReadOwnHeader(bytes.NewReader(disk), int64(len(disk))); err != nil {
		t.Errorf("a guest does not read the header: %v", err)
	}
	l, base := g.layout(), g.DataOffsetBytes
	for _, off := range []int64{0, 4096, 4 << 20} { // as capi:aegis128-plain64 has it
		a, want, number := mustAEGIS(t, vk.b, true), bytes.Clone(plain[off:off+4096]), make([]byte, 8)
		binary.LittleEndian.PutUint64(number, uint64(off/512))
		a.start([16]byte(append(bytes.Clone(number), make([]byte, 8)...)))
		a.absorb(append(bytes.Repeat(number, 2), make([]byte, 16)...)) // number, IV, padding
		a.encrypt(want)
		if tag := a.finish(24, 4096); !bytes.Equal(disk[base+l.dataOffset(off):][:4096], want) || !bytes.Equal(disk[base+l.tagOffset(off):][:16], tag[:]) {
			t.Errorf("the sector at %d is not what dm-crypt makes", off)
		}
	}
	for name, change := range map[string]func(d []byte){
		"data flipped": func(d []byte) { d[base+l.dataOffset(8192)] ^= 1 },
		"tag flipped":  func(d []byte) { d[base+l.tagOffset(8192)+15] ^= 1 },
		"sector and tag of the place before": func(d []byte) {
			copy(d[base+l.dataOffset(8192):][:4096], d[base+l.dataOffset(4096):])
			copy(d[base+l.tagOffset(8192):][:16], d[base+l.tagOffset(4096):])
		},
	} {
		d := bytes.Clone(disk)
		change(d)
		if got, err := readSector(t, d, g, vk, 8192); !errors.Is(err, ErrIntegrity) || bytes.Contains(got, plain[8192:8192+64]) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := readSector(t, d, g, vk, 4096); err != nil || !bytes.Equal(got, plain[4096:8192]) {
			t.Errorf("%s: innocent sector: %v", name, err)
		}
	}
}

// TestSuitesDoNotMix: a cipher goes with its own tags, key and tag length alone.
func TestSuitesDoNotMix(t *testing.T) {
	for name, change := range map[string]func(*Geometry){
		"without tags":        func(g *Geometry) { g.Integrity = nil },
		"tags of HMAC":        func(g *Geometry) { g.Integrity.Algorithm = integrityHMAC256 },
		"tags of nothing":     func(g *Geometry) { g.Integrity.Algorithm = "" },
		"XTS":                 func(g *Geometry) { g.Cipher = cipherAESXTS },
		"key of XTS":          func(g *Geometry) { g.VolumeKeyBytes = 96 },
		"drawn IV":            func(g *Geometry) { g.Cipher = "aegis128-random" },
		"AEGIS-128L":          func(g *Geometry) { g.Cipher = "aegis128l-plain64" },
		"tags of HMAC's size": func(g *Geometry) { g.Integrity.TagBytes = 32 },
		"short tags":          func(g *Geometry) { g.Integrity.TagBytes = 8 },
	} {
		g := aegisGeometry(t, 1<<20)
		change(&g)
		if g.Validate() == nil || g.TotalBytes() != 0 {
			t.Errorf("%s is accepted: %+v", name, g)
		}
	}
	xts := mustGeometry(t, 1<<20, true)
	xts.Integrity.Algorithm = integrityAEAD
	if xts.Validate() == nil {
		t.Error("XTS with tags of its own is accepted")
	}
	if _, err := NewGeometry(testUUID, 1<<20, AEGIS128, false); err == nil {
		t.Error("AEGIS without tags is laid out")
	}
	if _, err := NewGeometry(testUUID, 1<<20, "", true); err == nil {
		t.Error("no cipher is laid out")
	}
	g := aegisGeometry(t, 1<<20)
	if _, err := NewWriter(io.Discard, g, &VolumeKey{b: make([]byte, 96)}, testPassphrase(), options(1)); err == nil {
		t.Error("a key of XTS encrypts with AEGIS")
	}
}

// TestAEGISScratch: the scratch area has the image's cipher, and stores the IV
// that is drawn for each write.
func TestAEGISScratch(t *testing.T) {
	g, err := ScratchGeometry(aegisGeometry(t, 1<<20), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(cryptTable(&g, "253:1", []byte("K")).params); got != "capi:aegis128-random K 0 253:1 0 2 integrity:32:aead sector_size:4096" {
		t.Errorf("table %q", got)
	}
	image := aegisGeometry(t, 1<<20)
	if got := string(cryptTable(&image, "253:1", []byte("K")).params); got != "capi:aegis128-plain64 K 0 253:1 0 2 integrity:16:aead sector_size:4096" {
		t.Errorf("table %q", got)
	}
	if _, err := ScratchGeometry(Geometry{}, 64<<20); err == nil {
		t.Error("a scratch area beside no image")
	}
	if _, err := newSectorCipher(&g, mustKey(t, g)); err == nil {
		t.Error("sectors with stored IVs are encrypted outside the kernel")
	}
}
