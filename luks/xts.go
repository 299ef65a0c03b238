package luks

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// xts is AES-XTS (IEEE 1619) over whole sectors with plain64 tweaks. It is
// safe for concurrent use.
type xts struct {
	data, tweak cipher.Block
	fast        fastBlocks
}

// xtsScratch holds one sector's tweaks; every goroutine brings its own.
type xtsScratch [4096]byte

func newXTS(key []byte) (*xts, error) {
	if len(key) != 32 && len(key) != 64 {
		return nil, fmt.Errorf("XTS key of %d bytes, expected 32 or 64", len(key))
	}
	half := len(key) / 2
	data, err := aes.NewCipher(key[:half])
	if err != nil {
		return nil, err
	}
	tweak, err := aes.NewCipher(key[half:])
	if err != nil {
		return nil, err
	}
	x := &xts{data: data, tweak: tweak}
	x.fast.init(key[:half])
	return x, nil
}

// encrypt encrypts b in place. sector is the IV: the sector's number in
// 512-byte units, whatever len(b) is (dm-crypt without iv_large_sectors).
func (x *xts) encrypt(b []byte, sector uint64, s *xtsScratch) {
	t := x.tweaks(x.fast.tweakBytes(len(b)), sector, s)
	if x.fast.encrypt(b, t) {
		return
	}
	subtle.XORBytes(b, b, t)
	for i := 0; i < len(b); i += aes.BlockSize {
		x.data.Encrypt(b[i:i+aes.BlockSize], b[i:i+aes.BlockSize])
	}
	subtle.XORBytes(b, b, t)
}

// decrypt is the inverse of encrypt.
func (x *xts) decrypt(b []byte, sector uint64, s *xtsScratch) {
	t := x.tweaks(len(b), sector, s)
	subtle.XORBytes(b, b, t)
	for i := 0; i < len(b); i += aes.BlockSize {
		x.data.Decrypt(b[i:i+aes.BlockSize], b[i:i+aes.BlockSize])
	}
	subtle.XORBytes(b, b, t)
}

// tweaks fills s with the tweak of each block: the encrypted IV, doubled in
// GF(2^128) from block to block. Computing them ahead lets the XORs run wide.
func (x *xts) tweaks(n int, sector uint64, s *xtsScratch) []byte {
	t := s[:n]
	clear(t[:aes.BlockSize])
	binary.LittleEndian.PutUint64(t, sector)
	x.tweak.Encrypt(t[:aes.BlockSize], t[:aes.BlockSize])
	lo, hi := binary.LittleEndian.Uint64(t), binary.LittleEndian.Uint64(t[8:])
	for i := aes.BlockSize; i < n; i += aes.BlockSize {
		carry := -(hi >> 63) & 0x87
		hi = hi<<1 | lo>>63
		lo = lo<<1 ^ carry
		binary.LittleEndian.PutUint64(t[i:i+8], lo)
		binary.LittleEndian.PutUint64(t[i+8:i+16], hi)
	}
	return t
}
