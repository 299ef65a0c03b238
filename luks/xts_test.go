package luks

import (
	"bytes"
	"crypto/aes"
	"testing"

	xcrypto "golang.org/x/crypto/xts"
)

func TestXTSAgainstXCrypto(t *testing.T) {
	for _, keyBytes := range []int{32, 64} {
		key := plaintext(int64(keyBytes))
		x, err := newXTS(key)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := xcrypto.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		var s xtsScratch
		for _, n := range []int{16, 512, 4096} {
			for _, sector := range []uint64{0, 1, 8, 0xffffffff, 1 << 40, 1<<64 - 1} {
				plain := plaintext(int64(n))
				got, want := bytes.Clone(plain), make([]byte, n)
				x.encrypt(got, sector, &s)
				ref.Encrypt(want, plain, sector)
				if !bytes.Equal(got, want) {
					t.Fatalf("key of %d bytes, %d bytes at sector %d: wrong ciphertext", keyBytes, n, sector)
				}
				if x.decrypt(got, sector, &s); !bytes.Equal(got, plain) {
					t.Fatalf("key of %d bytes, %d bytes at sector %d: wrong plaintext", keyBytes, n, sector)
				}
			}
		}
	}
	for _, n := range []int{0, 16, 48, 65} {
		if _, err := newXTS(make([]byte, n)); err == nil {
			t.Errorf("key of %d bytes accepted", n)
		}
	}
}
