package luks

import "encoding/binary"

// AEGIS-128: "AEGIS: A Fast Authenticated Encryption Algorithm (v1.1)" by Wu and
// Preneel, which is what Linux calls aegis128. Names are those of its
// section 2. No library in Go has it; the kin that draft-irtf-cfrg-aegis-aead
// describes (AEGIS-128L, AEGIS-256) give other bytes.
const (
	aegisKeyBytes   = 16
	aegisTagBytes   = 16
	aegisBlockBytes = 16
)

// aegisState is S0 to S4.
type aegisState [5][aegisBlockBytes]byte

// aesTable is MixColumns over SubBytes (FIPS 197, section 5.1) for a byte in the
// first row; the other rows' are its rotations. It is used where there is no
// assembly, and not in constant time.
type aesTable [256]uint32

// init walks the multiplicative group of GF(2^8): p runs through the powers of 3,
// q through those of its inverse.
func (t *aesTable) init() {
	p, q := byte(1), byte(1)
	for {
		p ^= double(p)
		q ^= q << 1
		q ^= q << 2
		q ^= q << 4
		q ^= q >> 7 * 0x09
		t.set(p, q^rotate(q, 1)^rotate(q, 2)^rotate(q, 3)^rotate(q, 4)^0x63)
		if p == 1 {
			break
		}
	}
	t.set(0, 0x63)
}

func (t *aesTable) set(x, s byte) {
	d := double(s)
	t[x] = uint32(d) | uint32(s)<<8 | uint32(s)<<16 | uint32(s^d)<<24
}

func double(x byte) byte { return x<<1 ^ x>>7*0x1b }

func rotate(x byte, n uint) byte { return x<<n | x>>(8-n) }

// round is SubBytes, ShiftRows, MixColumns and AddRoundKey.
func (t *aesTable) round(in, key *[aegisBlockBytes]byte) (out [aegisBlockBytes]byte) {
	for c := range 4 {
		var w uint32
		for row := range 4 {
			x := t[in[(4*(c+row)+row)%aegisBlockBytes]]
			w ^= x<<(8*row) | x>>(32-8*row)
		}
		binary.LittleEndian.PutUint32(out[4*c:], w^binary.LittleEndian.Uint32(key[4*c:]))
	}
	return out
}
