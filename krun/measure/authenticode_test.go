package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// peKernel is a bzImage as far as QEMU and OVMF look at it: setup header of
// protocol 2.15, PE32+ with two sections, a certificate at the end.
func peKernel(t testing.TB) []byte {
	t.Helper()
	b := noise(2, 0x3000)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x400) // PE header behind the setup header
	b[0x1f1] = 3
	le.PutUint32(b[0x202:], headerMagic)
	le.PutUint16(b[0x206:], 0x20f)
	b[0x211] = 1
	le.PutUint16(b[0x236:], 0x7f) // can be loaded above 4 GiB
	pe := b[0x400:]
	copy(pe, "PE\x00\x00")
	le.PutUint16(pe[6:], 3)     // sections
	le.PutUint16(pe[20:], 0xa0) // bytes of the optional header
	opt := pe[24:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[60:], 0x800) // bytes of headers
	le.PutUint32(opt[108:], 6)    // directories
	le.PutUint32(opt[144:], 0x2e00)
	le.PutUint32(opt[148:], 0x200) // certificates
	for i, s := range [][2]uint32{{0x1000, 0x1800}, {0x800, 0x800}, {0, 0}} {
		section := opt[0xa0+40*i:]
		le.PutUint32(section[16:], s[1])
		le.PutUint32(section[20:], s[0])
	}
	return b
}

// TestAuthenticode hashes the parts that the test's kernel is made of.
func TestAuthenticode(t *testing.T) {
	k := peKernel(t)
	sum := func(k []byte) kbs.Digest {
		h := sha512.New384()
		if err := authenticode(h, k); err != nil {
			t.Fatal(err)
		}
		return kbs.Digest(h.Sum(nil))
	}
	const opt = 0x418
	parts := slices.Concat(k[:opt+64], k[opt+68:opt+144], k[opt+152:0x2800], k[0x2800:0x2e00])
	if got, want := sum(k), kbs.Sum384(parts); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	for _, at := range []int{opt + 64, opt + 144, 0x2e00, 0x2fff} { // checksum, certificates
		other := bytes.Clone(k)
		other[at] ^= 0x10
		if at != opt+144 && sum(other) != sum(k) {
			t.Errorf("byte %#x counts", at)
		}
	}
	for _, at := range []int{2, opt + 68, 0x7ff, 0x800, 0x27ff, 0x2dff} {
		other := bytes.Clone(k)
		other[at] ^= 1
		if sum(other) == sum(k) {
			t.Errorf("byte %#x does not count", at)
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"empty":             func(b []byte) []byte { return nil },
		"no MZ":             func(b []byte) []byte { b[0]++; return b },
		"header beyond":     func(b []byte) []byte { b[0x3e] = 0xff; return b },
		"no PE":             func(b []byte) []byte { b[0x400]++; return b },
		"PE32":              func(b []byte) []byte { b[opt] = 0x0b; b[opt+1] = 1; return b },
		"headers too short": func(b []byte) []byte { b[opt+60], b[opt+61] = 0, 4; return b },
		"headers too long":  func(b []byte) []byte { b[opt+62] = 1; return b },
		"many sections":     func(b []byte) []byte { b[0x406] = 97; return b },
		"sections beyond":   func(b []byte) []byte { b[0x415] = 0xff; return b },
		"section too long":  func(b []byte) []byte { b[opt+0xa0+18] = 1; return b },
		"certificates":      func(b []byte) []byte { b[opt+149] = 0xff; return b },
		"cut":               func(b []byte) []byte { return b[:0x2700] },
	} {
		if err := authenticode(sha512.New384(), change(bytes.Clone(k))); err == nil {
			t.Errorf("%s: hashed", name)
		}
	}
}

func FuzzAuthenticode(f *testing.F) {
	f.Add(peKernel(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 1<<16 {
			_ = authenticode(sha512.New384(), b)
		}
	})
}

// TestPatchedKernel checks QEMU's changes byte by byte, and that the initrd's
// address follows memory only below 2816 MiB.
func TestPatchedKernel(t *testing.T) {
	in := tdxInputs(t)
	le := binary.LittleEndian
	for low, addr := range map[uint64]uint32{0x80000000: 0x7ffd6000, 0x40000000: 0x3ffd6000} {
		got, err := in.patchedKernel(low)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(in.Kernel)
		want[0x210], want[0x211] = 0xb0, 0x81
		le.PutUint16(want[0x224:], 0xfe00)
		le.PutUint32(want[0x228:], 0x20000)
		le.PutUint32(want[0x218:], addr)
		le.PutUint32(want[0x21c:], 5000)
		if !bytes.Equal(got, want) {
			t.Errorf("%#x: initrd at %#x, want %#x", low, le.Uint32(got[0x218:]), addr)
		}
	}
	digests := map[uint]kbs.Digest{}
	for _, m := range []uint{1024, 2048, 2815, 2816, 8192} {
		r, err := Launch(QEMUTDX2024, in, Shape{2, m})
		if err != nil {
			t.Fatal(err)
		}
		digests[m] = r.RTMRs[1]
	}
	if digests[2816] != digests[8192] || digests[2816] != digests[2048] || digests[1024] == digests[2048] || digests[2815] == digests[2816] {
		t.Errorf("%v", digests)
	}
	for name, change := range map[string]func(*Inputs){
		"vga=":         func(in *Inputs) { in.Cmdline = "vga=791" },
		"old protocol": func(in *Inputs) { in.Kernel[0x206] = 0 },
		"loaded low":   func(in *Inputs) { in.Kernel[0x211] = 0 },
		"no header":    func(in *Inputs) { in.Kernel[0x202] = 0 },
	} {
		in := tdxInputs(t)
		change(&in)
		if _, err := in.patchedKernel(1 << 30); err == nil {
			t.Errorf("%s: patched", name)
		}
	}
}
