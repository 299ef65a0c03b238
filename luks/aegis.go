package luks

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// aegis encrypts sectors as dm-crypt with capi:aegis128-plain64 does: the IV is
// the sector's number, in front of the data the number and the IV are
// authenticated. It is for one goroutine.
type aegis struct {
	key   [aegisKeyBytes]byte
	fast  fastAEGIS
	table aesTable // where fast cannot
	state aegisState
	aad   [2 * aegisBlockBytes]byte // aadBytes, and zeros to a whole block
}

func newAEGIS(key []byte) (*aegis, error) {
	if len(key) != aegisKeyBytes {
		return nil, fmt.Errorf("AEGIS-128 key of %d bytes, expected %d", len(key), aegisKeyBytes)
	}
	a := &aegis{key: [aegisKeyBytes]byte(key)}
	a.fast.init()
	a.table.init()
	return a, nil
}

// seal is sectorCipher's.
func (a *aegis) seal(b, tags []byte, sector uint64, sectorBytes int) {
	for i := 0; i < len(b); i += sectorBytes {
		a.begin(sector + uint64(i/dmSectorBytes))
		a.encrypt(b[i : i+sectorBytes])
		tag := a.finish(aadBytes, sectorBytes)
		copy(tags[i/sectorBytes*aegisTagBytes:], tag[:])
	}
}

// open is sectorCipher's. What does not verify is overwritten: AEGIS decrypts
// before it knows.
func (a *aegis) open(b, tag []byte, sector uint64) error {
	a.begin(sector)
	a.decrypt(b)
	want := a.finish(aadBytes, len(b))
	if subtle.ConstantTimeCompare(tag, want[:]) != 1 {
		clear(b)
		return fmt.Errorf("sector %d: %w", sector, ErrIntegrity)
	}
	return nil
}

// begin starts a sector: its IV, then what is authenticated besides.
func (a *aegis) begin(sector uint64) {
	var iv [aegisBlockBytes]byte
	binary.LittleEndian.PutUint64(iv[:], sector)
	a.start(iv)
	putAAD(a.aad[:aadBytes], sector)
	a.absorb(a.aad[:])
}

// start is the initialization.
func (a *aegis) start(iv [aegisBlockBytes]byte) {
	c0 := [16]byte{0x00, 0x01, 0x01, 0x02, 0x03, 0x05, 0x08, 0x0d, 0x15, 0x22, 0x37, 0x59, 0x90, 0xe9, 0x79, 0x62}
	c1 := [16]byte{0xdb, 0x3d, 0x18, 0x55, 0x6d, 0xc2, 0x2f, 0xf1, 0x20, 0x11, 0x31, 0x42, 0x73, 0xb5, 0x28, 0xdd}
	var m [10 * aegisBlockBytes]byte // the key and the key over the IV, in turn
	subtle.XORBytes(m[16:32], a.key[:], iv[:])
	copy(m[:], a.key[:])
	for i := 2 * aegisBlockBytes; i < len(m); i += 2 * aegisBlockBytes {
		copy(m[i:], m[:2*aegisBlockBytes])
	}
	a.state[0], a.state[1], a.state[2] = [16]byte(m[16:32]), c1, c0
	subtle.XORBytes(a.state[3][:], a.key[:], c0[:])
	subtle.XORBytes(a.state[4][:], a.key[:], c1[:])
	a.absorb(m[:])
}

// finish is the finalization, after so many bytes of each.
func (a *aegis) finish(aadBytes, dataBytes int) [aegisTagBytes]byte {
	var m [7 * aegisBlockBytes]byte
	binary.LittleEndian.PutUint64(m[:], uint64(aadBytes)*8)
	binary.LittleEndian.PutUint64(m[8:], uint64(dataBytes)*8)
	subtle.XORBytes(m[:aegisBlockBytes], m[:aegisBlockBytes], a.state[3][:])
	for i := aegisBlockBytes; i < len(m); i += aegisBlockBytes {
		copy(m[i:], m[:aegisBlockBytes])
	}
	a.absorb(m[:])
	tag := a.state[0]
	for _, s := range a.state[1:] {
		subtle.XORBytes(tag[:], tag[:], s[:])
	}
	return tag
}

// absorb, encrypt and decrypt take whole blocks, in place.
func (a *aegis) absorb(b []byte) {
	if !a.fast.absorb(&a.state, b) {
		for ; len(b) > 0; b = b[aegisBlockBytes:] {
			a.update(b[:aegisBlockBytes])
		}
	}
}

func (a *aegis) encrypt(b []byte) {
	if a.fast.encrypt(&a.state, b) {
		return
	}
	for ; len(b) > 0; b = b[aegisBlockBytes:] {
		z := a.keystream()
		a.update(b[:aegisBlockBytes])
		subtle.XORBytes(b, b[:aegisBlockBytes], z[:])
	}
}

func (a *aegis) decrypt(b []byte) {
	if a.fast.decrypt(&a.state, b) {
		return
	}
	for ; len(b) > 0; b = b[aegisBlockBytes:] {
		z := a.keystream()
		subtle.XORBytes(b, b[:aegisBlockBytes], z[:])
		a.update(b[:aegisBlockBytes])
	}
}

// keystream is S1 ^ S4 ^ (S2 & S3).
func (a *aegis) keystream() (z [aegisBlockBytes]byte) {
	for i := range z {
		z[i] = a.state[1][i] ^ a.state[4][i] ^ a.state[2][i]&a.state[3][i]
	}
	return z
}

// update is StateUpdate128: each word becomes a round of AES over the one before,
// with itself for the round key.
func (a *aegis) update(m []byte) {
	last := a.state[4]
	for i := 4; i > 0; i-- {
		a.state[i] = a.table.round(&a.state[i-1], &a.state[i])
	}
	first := a.state[0]
	subtle.XORBytes(first[:], first[:], m)
	a.state[0] = a.table.round(&last, &first)
}
