package luks

import (
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// pbkdf2Key is PBKDF2 with HMAC (RFC 8018, section 5.2). Go's own takes the
// password as a string, which nobody can wipe. The caller wipes the n bytes.
func pbkdf2Key(newHash func() hash.Hash, password, salt []byte, iterations, n int) []byte {
	prf := hmac.New(newHash, password)
	out := make([]byte, 0, n+prf.Size())
	var sum [64]byte
	defer clear(sum[:])
	for block := uint32(1); len(out) < n; block++ {
		prf.Reset()
		prf.Write(salt)
		prf.Write(binary.BigEndian.AppendUint32(nil, block))
		u := prf.Sum(sum[:0])
		out = append(out, u...)
		t := out[len(out)-len(u):]
		for range iterations - 1 {
			prf.Reset()
			prf.Write(u)
			u = prf.Sum(u[:0])
			subtle.XORBytes(t, t, u)
		}
	}
	clear(out[n:])
	return out[:n]
}
