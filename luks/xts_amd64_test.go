//go:build !purego

package luks

import (
	"bytes"
	"testing"
)

// TestXTSOfEachCPU: a CPU of today has three ways to encrypt, and one that lacks
// the widest instructions must come to the same.
func TestXTSOfEachCPU(t *testing.T) {
	key := plaintext(64)
	for _, n := range []int{16, 128, 256, 384, 512, 4096} {
		for _, sector := range []uint64{0, 8, 1<<64 - 1} {
			x, err := newXTS(key)
			if err != nil {
				t.Fatal(err)
			}
			var s xtsScratch
			var all [3][]byte
			for i, restrict := range []func(){func() {}, func() { x.fast.wide = false }, func() { x.fast = fastBlocks{} }} {
				restrict()
				all[i] = plaintext(int64(n))
				x.encrypt(all[i], sector, &s)
			}
			if !bytes.Equal(all[0], all[2]) || !bytes.Equal(all[1], all[2]) {
				t.Errorf("%d bytes at sector %d: the ciphertexts differ", n, sector)
			}
		}
	}
}
