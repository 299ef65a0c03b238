package ext4

import (
	"encoding/binary"
	"math/bits"
)

// hashName is the kernel's half-MD4 directory hash (fs/ext4/hash.c) for
// unsigned names; the lowest bit is clear, it marks continued leaves.
func hashName(seed [16]byte, name string) (major, minor uint32) {
	buf := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if seed != [16]byte{} {
		for i := range buf {
			buf[i] = binary.LittleEndian.Uint32(seed[4*i:])
		}
	}
	for rest := name; rest != ""; rest = rest[min(len(rest), 32):] {
		halfMD4(&buf, hashWords(rest))
	}
	major = buf[1] &^ 1
	if major == 0x7fffffff<<1 { // means the end of a directory
		major = 0x7ffffffe << 1
	}
	return major, buf[2]
}

// hashWords packs up to 32 bytes, padded with the length of what is left.
func hashWords(name string) (in [8]uint32) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	for i := range in {
		in[i] = pad
	}
	word := pad
	for i := 0; i < len(name) && i < 32; i++ {
		word = uint32(name[i]) + word<<8
		in[i/4] = word
		if i%4 == 3 {
			word = pad
		}
	}
	return in
}

func halfMD4(buf *[4]uint32, in [8]uint32) {
	a, b, c, d := buf[0], buf[1], buf[2], buf[3]
	f := func(x, y, z uint32) uint32 { return z ^ (x & (y ^ z)) }
	g := func(x, y, z uint32) uint32 { return (x & y) + ((x ^ y) & z) }
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	rounds := []struct {
		fn    func(x, y, z uint32) uint32
		k     uint32
		order [8]int
		shift [4]int
	}{
		{f, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
		{g, 0x5A827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
		{h, 0x6ED9EBA1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
	}
	for _, r := range rounds {
		for i, w := range r.order {
			t := bits.RotateLeft32(a+r.fn(b, c, d)+in[w]+r.k, r.shift[i%4])
			a, b, c, d = d, t, b, c
		}
	}
	buf[0] += a
	buf[1] += b
	buf[2] += c
	buf[3] += d
}
