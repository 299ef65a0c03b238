package luks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// object and at walk the JSON area as a hostile host would.
type object = map[string]any

func at(o object, path ...string) object {
	for _, p := range path {
		o = o[p].(object)
	}
	return o
}

// edited returns disk with its JSON area changed in both copies and the
// checksums made right again.
func edited(t testing.TB, disk []byte, change func(object)) []byte {
	t.Helper()
	js, _, _ := bytes.Cut(disk[binaryBytes:minHeaderBytes], []byte{0})
	var o object
	d := json.NewDecoder(bytes.NewReader(js))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		t.Fatal(err)
	}
	change(o)
	js, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return withJSON(disk, js)
}

func withJSON(disk, js []byte) []byte {
	b := bytes.Clone(disk)
	for _, off := range []int{0, minHeaderBytes} {
		c := b[off : off+minHeaderBytes]
		clear(c[binaryBytes:])
		copy(c[binaryBytes:], js)
		fixChecksum(c)
	}
	return b
}

func fixChecksum(c []byte) {
	sum := sha256.Sum256(checksumInput(c))
	copy(c[offChecksum:], sum[:])
}

func smallDisk(t testing.TB, integrity bool) (Geometry, *VolumeKey, []byte) {
	g := mustGeometry(t, 64<<10, integrity)
	vk := mustKey(t, g)
	return g, vk, mustDisk(t, g, vk, plaintext(64<<10))
}

func open(disk []byte) (*Header, error) {
	return ReadHeader(bytes.NewReader(disk), int64(len(disk)))
}

func TestReadHeaderRefusesEveryMutation(t *testing.T) {
	_, _, disk := smallDisk(t, true)
	if _, err := open(edited(t, disk, func(object) {})); err != nil {
		t.Fatalf("unchanged header refused: %v", err)
	}
	set := func(value any, path ...string) func(object) {
		return func(o object) { at(o, path[:len(path)-1]...)[path[len(path)-1]] = value }
	}
	drop := func(path ...string) func(object) {
		return func(o object) { delete(at(o, path[:len(path)-1]...), path[len(path)-1]) }
	}
	for name, change := range map[string]func(object){
		"segment null cipher":         set("cipher_null-ecb", "segments", "0", "encryption"),
		"segment other cipher":        set("aes-cbc-essiv:sha256", "segments", "0", "encryption"),
		"segment capi cipher":         set("capi:ecb(cipher_null)", "segments", "0", "encryption"),
		"segment type":                set("linear", "segments", "0", "type"),
		"segment in the keyslots":     set("32768", "segments", "0", "offset"),
		"segment off the disk":        set("1099511627776", "segments", "0", "offset"),
		"segment negative offset":     set("-1048576", "segments", "0", "offset"),
		"segment unaligned":           set("1048577", "segments", "0", "offset"),
		"segment huge offset":         set("18446744073709551615", "segments", "0", "offset"),
		"segment octal offset":        set("01048576", "segments", "0", "offset"),
		"segment numeric offset":      set(1048576, "segments", "0", "offset"),
		"segment size zero":           set("0", "segments", "0", "size"),
		"segment size too large":      set("1099511627776", "segments", "0", "size"),
		"segment IV":                  set("8", "segments", "0", "iv_tweak"),
		"segment sector":              set(1024, "segments", "0", "sector_size"),
		"segment flags":               set([]string{"in-reencryption"}, "segments", "0", "flags"),
		"segment integrity":           set("crc32c", "segments", "0", "integrity", "type"),
		"segment journal encryption":  set("xts(aes)", "segments", "0", "integrity", "journal_encryption"),
		"segment integrity dropped":   drop("segments", "0", "integrity"),
		"segment unknown member":      set(1, "segments", "0", "opal_segment_number"),
		"segment missing":             drop("segments", "0"),
		"segment second":              func(o object) { at(o, "segments")["1"] = at(o, "segments", "0") },
		"slot null cipher":            set("cipher_null-ecb", "keyslots", "0", "area", "encryption"),
		"slot other cipher":           set("aes-ecb", "keyslots", "0", "area", "encryption"),
		"slot cipher key":             set(16, "keyslots", "0", "area", "key_size"),
		"slot key size":               set(64, "keyslots", "0", "key_size"),
		"slot key size zero":          set(0, "keyslots", "0", "key_size"),
		"slot huge key":               set(1<<30, "keyslots", "0", "key_size"),
		"slot area size":              set("4096", "keyslots", "0", "area", "size"),
		"slot area huge":              set("9223372036854775807", "keyslots", "0", "area", "size"),
		"slot area in metadata":       set("0", "keyslots", "0", "area", "offset"),
		"slot area in the data":       set("1048576", "keyslots", "0", "area", "offset"),
		"slot area overflow":          set("9223372036854771712", "keyslots", "0", "area", "offset"),
		"slot area type":              set("journal", "keyslots", "0", "area", "type"),
		"slot type":                   set("reencrypt", "keyslots", "0", "type"),
		"slot stripes":                set(1, "keyslots", "0", "af", "stripes"),
		"slot stripes huge":           set(1<<31, "keyslots", "0", "af", "stripes"),
		"slot af hash":                set("md5", "keyslots", "0", "af", "hash"),
		"slot af type":                set("none", "keyslots", "0", "af", "type"),
		"slot kdf":                    set("scrypt", "keyslots", "0", "kdf", "type"),
		"slot kdf hash":               set("sha1", "keyslots", "0", "kdf", "hash"),
		"slot iterations huge":        set(1<<31, "keyslots", "0", "kdf", "iterations"),
		"slot iterations zero":        set(0, "keyslots", "0", "kdf", "iterations"),
		"slot iterations negative":    set(-1000, "keyslots", "0", "kdf", "iterations"),
		"slot argon2 in pbkdf2":       set(4, "keyslots", "0", "kdf", "time"),
		"slot argon2 without cost":    set(object{"type": "argon2id", "salt": strings.Repeat("A", 43) + "="}, "keyslots", "0", "kdf"),
		"slot argon2 memory":          set(object{"type": "argon2id", "salt": strings.Repeat("A", 43) + "=", "time": 4, "cpus": 4, "memory": 1 << 22}, "keyslots", "0", "kdf"),
		"slot argon2 time":            set(object{"type": "argon2id", "salt": strings.Repeat("A", 43) + "=", "time": 1 << 20, "cpus": 4, "memory": 1024}, "keyslots", "0", "kdf"),
		"slot argon2 threads":         set(object{"type": "argon2id", "salt": strings.Repeat("A", 43) + "=", "time": 4, "cpus": 255, "memory": 1024}, "keyslots", "0", "kdf"),
		"slot salt":                   set("AAAA", "keyslots", "0", "kdf", "salt"),
		"slot salt not canonical":     set(strings.Repeat("A", 42)+"B=", "keyslots", "0", "kdf", "salt"),
		"slot number":                 func(o object) { at(o, "keyslots")["32"] = at(o, "keyslots", "0"); delete(at(o, "keyslots"), "0") },
		"slot name":                   func(o object) { at(o, "keyslots")["00"] = at(o, "keyslots", "0"); delete(at(o, "keyslots"), "0") },
		"slot overlap":                func(o object) { at(o, "keyslots")["1"] = at(o, "keyslots", "0") },
		"slot none":                   drop("keyslots", "0"),
		"digest type":                 set("none", "digests", "0", "type"),
		"digest hash":                 set("sha1", "digests", "0", "hash"),
		"digest iterations":           set(1<<30, "digests", "0", "iterations"),
		"digest iterations one":       set(1, "digests", "0", "iterations"),
		"digest short":                set("AAAA", "digests", "0", "digest"),
		"digest empty":                set("", "digests", "0", "digest"),
		"digest salt":                 set("", "digests", "0", "salt"),
		"digest foreign slot":         set([]string{"0", "7"}, "digests", "0", "keyslots"),
		"digest repeated slot":        set([]string{"0", "0"}, "digests", "0", "keyslots"),
		"digest no segment":           set([]string{}, "digests", "0", "segments"),
		"digest missing":              drop("digests", "0"),
		"config json size":            set("16384", "config", "json_size"),
		"config keyslots size":        set("1073741824", "config", "keyslots_size"),
		"config keyslots into data":   set("1019904", "config", "keyslots_size"),
		"config keyslots unaligned":   set("1015809", "config", "keyslots_size"),
		"config requirements":         set(object{"mandatory": []string{"online-reencrypt-v2"}}, "config", "requirements"),
		"upper-case member":           set("aes-xts-plain64", "segments", "0", "Encryption"),
		"unknown section":             set(object{}, "extra"),
		"sections of the wrong types": set([]string{}, "keyslots"),
	} {
		if _, err := open(edited(t, disk, change)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReadHeaderRefusesAmbiguousJSON(t *testing.T) {
	_, _, disk := smallDisk(t, false)
	js, _, _ := bytes.Cut(disk[binaryBytes:minHeaderBytes], []byte{0})
	for name, bad := range map[string][]byte{
		"repeated member": bytes.Replace(js, []byte(`"encryption":"aes-xts-plain64"`), []byte(`"encryption":"cipher_null-ecb","encryption":"aes-xts-plain64"`), 1),
		"trailing value":  append(bytes.Clone(js), "{}"...),
		"after the zero":  append(append(bytes.Clone(js), 0), "x"...),
		"no object":       []byte(`[]`),
		"empty":           {},
		"deep":            []byte(strings.Repeat(`{"a":`, 1000)),
		"deep tokens":     bytes.Replace(js, []byte(`"tokens":{}`), []byte(`"tokens":{"0":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`), 1),
		"no zero":         bytes.Repeat([]byte(" "), minHeaderBytes-binaryBytes),
	} {
		if bytes.Equal(bad, js) {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := open(withJSON(disk, bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReadHeaderRefusesBinaryMutations(t *testing.T) {
	_, _, disk := smallDisk(t, false)
	for name, change := range map[string]func(c []byte){
		"magic":        func(c []byte) { c[0] = 'X' },
		"version":      func(c []byte) { c[offVersion+1] = 1 },
		"small":        func(c []byte) { binary.BigEndian.PutUint64(c[offHeaderBytes:], 4096) },
		"zero size":    func(c []byte) { binary.BigEndian.PutUint64(c[offHeaderBytes:], 0) },
		"huge":         func(c []byte) { binary.BigEndian.PutUint64(c[offHeaderBytes:], 1<<62) },
		"odd size":     func(c []byte) { binary.BigEndian.PutUint64(c[offHeaderBytes:], 20<<10) },
		"offset":       func(c []byte) { c[offHeaderOffset]++ },
		"checksum alg": func(c []byte) { copy(c[offChecksumName:], "crc32c") },
		"uuid":         func(c []byte) { c[offUUID] = '/' },
	} {
		b := bytes.Clone(disk)
		for _, off := range []int{0, minHeaderBytes} {
			change(b[off:])
			fixChecksum(b[off : off+minHeaderBytes])
		}
		if _, err := open(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, n := range []int{0, 1, 4096, minHeaderBytes, 40 << 10, len(disk) - 65<<10} {
		if _, err := ReadHeader(bytes.NewReader(disk[:n]), int64(n)); err == nil {
			t.Errorf("disk of %d bytes accepted", n)
		}
	}
}

func TestSecondaryHeaderSteps(t *testing.T) {
	g, vk, disk := smallDisk(t, true)
	b := bytes.Clone(disk)
	b[5000] ^= 1 // primary JSON: wrong checksum
	checkDisk(t, b, g, vk, plaintext(64<<10))
	b[minHeaderBytes+5000] ^= 1
	if _, err := open(b); err == nil {
		t.Fatal("two broken headers accepted")
	}
}

func TestUnlockUsesItsOwnCopy(t *testing.T) {
	_, vk, disk := smallDisk(t, true)
	h, err := open(disk)
	if err != nil {
		t.Fatal(err)
	}
	clear(disk) // the host changes its mind
	for range 2 {
		if key, err := h.Unlock(testPassphrase()); err != nil || key.Digest() != vk.Digest() {
			t.Fatalf("unlocking from the private copy: %v", err)
		}
	}
	if _, err := h.Unlock(secret.Bytes{}); !errors.Is(err, ErrWrongPassphrase) {
		t.Fatalf("empty passphrase: %v", err)
	}
}

func TestGeometryRefusesSuperblocks(t *testing.T) {
	g, _, disk := smallDisk(t, true)
	for name, change := range map[string]func(sb []byte){
		"magic":        func(sb []byte) { sb[0] = 0 },
		"version":      func(sb []byte) { sb[8] = 5 },
		"interleave":   func(sb []byte) { sb[9] = 200 },
		"tag size":     func(sb []byte) { sb[10] = 4 },
		"no journal":   func(sb []byte) { clear(sb[12:16]) },
		"huge journal": func(sb []byte) { sb[15] = 0xff },
		"too long":     func(sb []byte) { sb[18] = 1 },
		"huge":         func(sb []byte) { sb[23] = 0xff },
		"recalculate":  func(sb []byte) { sb[24] |= 2 },
		"block size":   func(sb []byte) { sb[28] = 0 },
		"block shift":  func(sb []byte) { sb[28] = 255 },
	} {
		b := bytes.Clone(disk)
		change(b[g.DataOffsetBytes:])
		h, err := open(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Geometry(); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
}

func TestKeyslots(t *testing.T) {
	_, _, disk := smallDisk(t, true)
	h, err := open(disk)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Keyslots(); len(got) != 1 || got[0] != (Keyslot{Name: "0", KDF: FastKDF()}) {
		t.Fatalf("keyslots %+v", got)
	}
}

func TestReplaceKeyslots(t *testing.T) {
	g, vk, disk := smallDisk(t, true)
	h, err := open(disk)
	if err != nil {
		t.Fatal(err)
	}
	front, err := h.ReplaceKeyslots(vk, secret.New([]byte("another")), FastKDF(), seeded(5))
	if err != nil || int64(len(front)) != g.DataOffsetBytes {
		t.Fatalf("%d bytes, %v", len(front), err)
	}
	copy(disk, front)
	h, err = open(disk)
	if err != nil || h.bin.sequence != 2 {
		t.Fatalf("rotated header: %+v, %v", h, err)
	}
	if key, err := h.Unlock(secret.New([]byte("another"))); err != nil || key.Digest() != vk.Digest() {
		t.Fatalf("new passphrase: %v", err)
	}
	if _, err := h.Unlock(testPassphrase()); !errors.Is(err, ErrWrongPassphrase) {
		t.Fatalf("old passphrase: %v", err)
	}
	wrong := &VolumeKey{b: make([]byte, 96)}
	if _, err := h.ReplaceKeyslots(wrong, testPassphrase(), FastKDF(), seeded(5)); err == nil {
		t.Fatal("rotated to a foreign volume key")
	}
	if _, err := h.ReplaceKeyslots(vk, testPassphrase(), KDF{}, seeded(5)); err == nil {
		t.Fatal("zero KDF accepted")
	}
}

// frontReader serves a header and zeros behind it, up to any size.
type frontReader []byte

func (f frontReader) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(f)) {
		copy(p, f[off:])
	}
	return len(p), nil
}

var _ io.ReaderAt = frontReader{}

func FuzzReadHeader(f *testing.F) {
	for _, integrity := range []bool{false, true} {
		_, _, disk := smallDisk(f, integrity)
		js, _, _ := bytes.Cut(disk[binaryBytes:minHeaderBytes], []byte{0})
		f.Add(disk[:512], js, int64(len(disk)), disk[defaultDataOffsetBytes:][:superblockUsedBytes])
	}
	f.Fuzz(func(t *testing.T, fixed, js []byte, size int64, sb []byte) {
		b := make([]byte, 2*minHeaderBytes)
		copy(b[:binaryBytes], fixed)
		copy(b[binaryBytes:minHeaderBytes], js)
		fixChecksum(b[:minHeaderBytes])
		h, err := ReadHeader(frontReader(b), size)
		if err != nil {
			return
		}
		if len(h.areas) > maxKeyslots {
			t.Fatalf("%d keyslots", len(h.areas))
		}
		if h.superblock != nil {
			copy(h.superblock, sb)
		}
		if g, err := h.Geometry(); err == nil && (g.Validate() != nil || g.TotalBytes() > size) {
			t.Fatalf("geometry %+v of a disk of %d bytes", g, size)
		}
	})
}
