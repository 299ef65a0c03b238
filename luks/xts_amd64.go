//go:build !purego

package luks

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// fastBlocks is the AES-NI encryption of many blocks at once. crypto/aes does
// one block per call, at a fifth of the speed the CPU has; XTS encryption of
// a whole image would then cost more than the hashing it feeds.
type fastBlocks struct {
	keys   [60]uint32 // expanded key; AES-256 uses all of it
	rounds int        // 0: not available on this CPU
	wide   bool       // the CPU does four blocks with one instruction
}

//go:noescape
func encryptBlocks(keys *uint32, rounds int, buf, tweaks *byte, blocks int)

//go:noescape
func encryptFrom(keys *uint32, buf, tweaks *byte, blocks int)

//go:noescape
func subWord(x uint32) uint32

// How many bytes encryptBlocks and encryptFrom handle at a time.
const (
	fastGroup = 8 * 16
	wideGroup = 16 * 16
)

// init expands key (FIPS 197, section 5.2).
func (f *fastBlocks) init(key []byte) {
	if !cpu.X86.HasAES || !cpu.X86.HasAVX {
		return
	}
	nk := len(key) / 4
	f.rounds = nk + 6
	f.wide = f.rounds == 14 && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ
	for i := range nk {
		f.keys[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	rcon := uint32(1)
	for i := nk; i < 4*(f.rounds+1); i++ {
		t := f.keys[i-1]
		switch {
		case i%nk == 0:
			t = subWord(bits.RotateLeft32(t, -8)) ^ rcon
			rcon = rcon<<1 ^ -(rcon>>7)&0x11b
		case nk == 8 && i%nk == 4:
			t = subWord(t)
		}
		f.keys[i] = f.keys[i-nk] ^ t
	}
}

// tweakBytes is how many bytes of tweaks encrypt wants for n bytes: all, or only
// the first if it makes the others itself.
func (f *fastBlocks) tweakBytes(n int) int {
	if f.wide && n%wideGroup == 0 {
		return min(n, wideGroup)
	}
	return n
}

// encrypt does XTS on b with the tweaks t, in place. It reports whether it
// could.
func (f *fastBlocks) encrypt(b, t []byte) bool {
	switch {
	case f.rounds == 0 || len(b) == 0 || len(t) != f.tweakBytes(len(b)):
		return false
	case f.wide && len(b)%wideGroup == 0:
		encryptFrom(&f.keys[0], &b[0], &t[0], len(b)/16)
		return true
	case len(b)%fastGroup == 0:
		encryptBlocks(&f.keys[0], f.rounds, &b[0], &t[0], len(b)/16)
		return true
	}
	return false
}
