package luks

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// afStripes is how often LUKS inflates key material, so that a keyslot can be
// destroyed on media that remember ("anti-forensic splitter", LUKS1 spec 2.4).
const afStripes = 4000

// afSplit spreads key over afStripes stripes of which every one is needed.
func afSplit(key []byte, newHash func() hash.Hash, rand io.Reader) ([]byte, error) {
	n := len(key)
	out := make([]byte, n*afStripes)
	last := out[n*(afStripes-1):]
	if _, err := io.ReadFull(rand, out[:n*(afStripes-1)]); err != nil {
		return nil, fmt.Errorf("drawing keyslot stripes: %w", err)
	}
	h := newHash()
	for i := range afStripes - 1 {
		subtle.XORBytes(last, last, out[i*n:(i+1)*n])
		afDiffuse(last, h)
	}
	subtle.XORBytes(last, last, key)
	return out, nil
}

// afMerge is the inverse of afSplit. The caller wipes the result.
func afMerge(stripes []byte, n int, newHash func() hash.Hash) []byte {
	key := make([]byte, n)
	h := newHash()
	for i := range afStripes - 1 {
		subtle.XORBytes(key, key, stripes[i*n:(i+1)*n])
		afDiffuse(key, h)
	}
	subtle.XORBytes(key, key, stripes[n*(afStripes-1):n*afStripes])
	return key
}

// afDiffuse replaces each digest-sized piece of b by the hash of its number
// and itself; the last piece by the start of its hash.
func afDiffuse(b []byte, h hash.Hash) {
	var index [4]byte
	var sum [64]byte
	for i := 0; len(b) > 0; i++ {
		piece := b[:min(h.Size(), len(b))]
		binary.BigEndian.PutUint32(index[:], uint32(i))
		h.Reset()
		h.Write(index[:])
		h.Write(piece)
		copy(piece, h.Sum(sum[:0]))
		b = b[len(piece):]
	}
}
