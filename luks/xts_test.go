package luks

import (
	"bytes"
	"crypto/aes"
	"os"
	"os/exec"
	"path/filepath"
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

// FuzzXTS: assembly, portable code and x/crypto agree on every key, length
// and sector.
func FuzzXTS(f *testing.F) {
	f.Add(plaintext(64), plaintext(4096), uint64(8))
	f.Add(plaintext(32), plaintext(144), uint64(1<<63))
	f.Add(make([]byte, 64), plaintext(16), uint64(0))
	f.Fuzz(func(t *testing.T, key, plain []byte, sector uint64) {
		if len(key) < 32 || len(plain) < 16 || len(plain) > 4096 {
			return
		}
		key, plain = key[:len(key)&(32|64)], plain[:len(plain)&^15]
		x, err := newXTS(key)
		if err != nil {
			return // 96 bytes
		}
		portable, err := newXTS(key)
		if err != nil {
			t.Fatal(err)
		}
		portable.fast = fastBlocks{}
		ref, err := xcrypto.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		var s xtsScratch
		want := make([]byte, len(plain))
		ref.Encrypt(want, plain, sector)
		for name, x := range map[string]*xts{"ours": x, "portable": portable} {
			got := bytes.Clone(plain)
			if x.encrypt(got, sector, &s); !bytes.Equal(got, want) {
				t.Errorf("%s: wrong ciphertext of %d bytes at sector %d", name, len(plain), sector)
			}
			if x.decrypt(got, sector, &s); !bytes.Equal(got, plain) {
				t.Errorf("%s: wrong plaintext of %d bytes at sector %d", name, len(plain), sector)
			}
		}
	})
}

// TestARM64 runs the portable code where there is nothing else.
func TestARM64(t *testing.T) {
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		if qemu, err = exec.LookPath("qemu-aarch64"); err != nil {
			t.Skip("qemu-user is not installed")
		}
	}
	if testing.Short() {
		t.Skip("compiles for arm64")
	}
	binary := filepath.Join(t.TempDir(), "luks.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building for arm64: %v: %s", err, out)
	}
	if out, err := exec.Command(qemu, binary, "-test.run", "XTS").CombinedOutput(); err != nil {
		t.Fatalf("on arm64: %v: %s", err, out)
	}
}
