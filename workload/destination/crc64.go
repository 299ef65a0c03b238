package destination

import (
	"encoding/binary"
	"hash"
	"hash/crc64"
)

// isoCRC is hash/crc64's ISO checksum, which tar-split wants of every file, at
// several times the speed: that matters for a file that is a disk. It reduces
// by shifting, four words at a time, because the polynomial is so sparse:
//
//	x^64 = x^4+x^3+x+1, and so x^256 = (x^64)^4 = x^16+x^12+x^4+1  (mod P)
//
// Bits are reflected: to multiply by x is to shift right by one.
type isoCRC struct {
	crc uint64 // as hash/crc64 keeps it
	iso *crc64.Table
}

func newISOCRC() *isoCRC { return &isoCRC{iso: crc64.MakeTable(crc64.ISO)} }

// timesX64 is s * x^64 mod P: what is shifted out is multiplied once more.
func timesX64(s uint64) uint64 {
	over := s<<63 ^ s<<61 ^ s<<60
	return s ^ s>>1 ^ s>>3 ^ s>>4 ^ over ^ over>>1 ^ over>>3 ^ over>>4
}

// timesX256 is s * x^256 mod P.
func timesX256(s uint64) uint64 {
	over := s<<60 ^ s<<52 ^ s<<48
	return s ^ s>>4 ^ s>>12 ^ s>>16 ^ over ^ over>>1 ^ over>>3 ^ over>>4
}

// Write implements io.Writer.
func (c *isoCRC) Write(p []byte) (int, error) {
	n := len(p)
	if n >= 64 {
		le := binary.LittleEndian
		var s0, s1, s2, s3 uint64 = ^c.crc, 0, 0, 0
		for ; len(p) >= 64; p = p[32:] {
			s0 = timesX256(s0 ^ le.Uint64(p))
			s1 = timesX256(s1 ^ le.Uint64(p[8:]))
			s2 = timesX256(s2 ^ le.Uint64(p[16:]))
			s3 = timesX256(s3 ^ le.Uint64(p[24:]))
		}
		s := timesX64(s0 ^ le.Uint64(p))
		s = timesX64(s ^ s1 ^ le.Uint64(p[8:]))
		s = timesX64(s ^ s2 ^ le.Uint64(p[16:]))
		c.crc = ^timesX64(s ^ s3 ^ le.Uint64(p[24:]))
		p = p[32:]
	}
	c.crc = crc64.Update(c.crc, c.iso, p)
	return n, nil
}

// Sum implements hash.Hash.
func (c *isoCRC) Sum(b []byte) []byte { return binary.BigEndian.AppendUint64(b, c.crc) }

// Reset implements hash.Hash.
func (c *isoCRC) Reset() { c.crc = 0 }

// Size implements hash.Hash.
func (c *isoCRC) Size() int { return crc64.Size }

// BlockSize implements hash.Hash.
func (c *isoCRC) BlockSize() int { return 1 }

var _ hash.Hash = (*isoCRC)(nil)
