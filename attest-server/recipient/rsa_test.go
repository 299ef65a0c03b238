package recipient

import (
	"bytes"
	"testing"
)

// TestParseRSA: keys of 2048 to 4096 bits with the usual exponent, in one
// encoding each.
func TestParseRSA(t *testing.T) {
	usual := []byte{1, 0, 1}
	modulus := func(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }
	for _, n := range []int{256, 384, 512} {
		if _, err := ParseRSA(modulus(n), usual); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	even, zero := modulus(256), modulus(256)
	even[255], zero[0] = 0xfe, 0x7f
	for name, c := range map[string]struct{ n, e []byte }{
		"none": {nil, usual}, "512 bits": {modulus(64), usual}, "2040 bits": {modulus(255), usual}, "4104 bits": {modulus(513), usual},
		"exponent 1": {modulus(256), []byte{1}}, "exponent 3": {modulus(256), []byte{3}}, "no exponent": {modulus(256), nil},
		"exponent with a zero before it": {modulus(256), []byte{0, 1, 0, 1}}, "even": {even, usual}, "a zero bit in front": {zero, usual},
	} {
		if k, err := ParseRSA(c.n, c.e); err == nil {
			t.Errorf("%s: a key of %d bits", name, k.N.BitLen())
		}
	}
}
