//go:build !purego

package luks

import "golang.org/x/sys/cpu"

// fastAEGIS runs the state through AES-NI, five rounds for a block of data.
// crypto/aes offers whole encryptions only, never a round.
type fastAEGIS struct{ usable bool }

// All take blocks of 16 bytes, in place.
//
//go:noescape
func aegisAbsorb(state *aegisState, p *byte, blocks int)

//go:noescape
func aegisEncrypt(state *aegisState, p *byte, blocks int)

//go:noescape
func aegisDecrypt(state *aegisState, p *byte, blocks int)

func (f *fastAEGIS) init() { f.usable = cpu.X86.HasAES && cpu.X86.HasAVX }

// takes says whether the assembly can: with whole blocks, on a CPU with AES-NI.
func (f *fastAEGIS) takes(b []byte) bool {
	return f.usable && len(b) > 0 && len(b)%aegisBlockBytes == 0
}

func (f *fastAEGIS) absorb(s *aegisState, b []byte) bool {
	if !f.takes(b) {
		return false
	}
	aegisAbsorb(s, &b[0], len(b)/aegisBlockBytes)
	return true
}

func (f *fastAEGIS) encrypt(s *aegisState, b []byte) bool {
	if !f.takes(b) {
		return false
	}
	aegisEncrypt(s, &b[0], len(b)/aegisBlockBytes)
	return true
}

func (f *fastAEGIS) decrypt(s *aegisState, b []byte) bool {
	if !f.takes(b) {
		return false
	}
	aegisDecrypt(s, &b[0], len(b)/aegisBlockBytes)
	return true
}
