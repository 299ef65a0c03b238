package luks

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

const testUUID = "6d2e1f6a-3f57-4a47-9a0b-0d7c7f6f2a11"

func testPassphrase() secret.Bytes { return secret.New(bytes.Repeat([]byte("0123456789abcdef"), 4)) }

// seeded is a reproducible source of "randomness".
func seeded(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func mustGeometry(t testing.TB, n int64, integrity bool) Geometry {
	t.Helper()
	g, err := NewGeometry(testUUID, n, AESXTS, integrity)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func mustKey(t testing.TB, g Geometry) *VolumeKey {
	t.Helper()
	vk, err := NewVolumeKey(seeded(1), g)
	if err != nil {
		t.Fatal(err)
	}
	return vk
}

func plaintext(n int64) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(seeded(9), b)
	return b
}

// mustDisk writes a whole disk.
func mustDisk(t testing.TB, g Geometry, vk *VolumeKey, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, g, vk, testPassphrase(), WriterOptions{KDF: FastKDF(), Rand: seeded(2)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWriterReaderRoundTrip(t *testing.T) {
	for _, integrity := range []bool{false, true} {
		for _, n := range []int64{4096, 8192, 4<<20 - 4096, 4 << 20, 4<<20 + 4096, 9<<20 + 8192} {
			t.Run(fmt.Sprintf("integrity=%v/%d", integrity, n), func(t *testing.T) {
				g := mustGeometry(t, n, integrity)
				vk, plain := mustKey(t, g), plaintext(n)
				disk := mustDisk(t, g, vk, plain)
				if int64(len(disk)) != g.TotalBytes() {
					t.Fatalf("disk of %d bytes, TotalBytes says %d", len(disk), g.TotalBytes())
				}
				checkDisk(t, disk, g, vk, plain)
			})
		}
	}
}

func TestSmallSectorsRoundTrip(t *testing.T) {
	g := mustGeometry(t, 5<<20+4096, true)
	g.SectorBytes = 512
	g.Integrity.Log2InterleaveSectors = 12
	vk, plain := mustKey(t, g), plaintext(5<<20+4096)
	disk := mustDisk(t, g, vk, plain)
	if int64(len(disk)) != g.TotalBytes() {
		t.Fatalf("disk of %d bytes, TotalBytes says %d", len(disk), g.TotalBytes())
	}
	checkDisk(t, disk, g, vk, plain)
}

// checkDisk opens disk by its header and passphrase and compares everything.
func checkDisk(t *testing.T, disk []byte, g Geometry, vk *VolumeKey, plain []byte) {
	t.Helper()
	h, err := ReadHeader(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Geometry()
	if err != nil || got.TotalBytes() != g.TotalBytes() || got.PlainBytes != g.PlainBytes || got.UUID != g.UUID {
		t.Fatalf("header's geometry %+v, %v", got, err)
	}
	key, err := h.Unlock(testPassphrase())
	if err != nil || key.Digest() != vk.Digest() {
		t.Fatalf("unlocking: %v", err)
	}
	r, err := NewReader(bytes.NewReader(disk), g, key)
	if err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(io.NewSectionReader(r, 0, g.PlainBytes))
	if err != nil || sha256.Sum256(back) != sha256.Sum256(plain) {
		t.Fatalf("read back %d bytes, %v", len(back), err)
	}
	if _, err := h.Unlock(secret.New([]byte("wrong"))); !errors.Is(err, ErrWrongPassphrase) {
		t.Fatalf("wrong passphrase: %v", err)
	}
}

func writeTemp(t testing.TB, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
