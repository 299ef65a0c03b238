package destination

import (
	"bytes"
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

// TestISOCRC compares with the standard library, for every length and however
// the input is cut.
func TestISOCRC(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	table := crc64.MakeTable(crc64.ISO)
	for n := range 600 {
		c, want := newISOCRC(), crc64.New(table)
		for _, cut := range []int{n, r.IntN(n + 1), 63, 64, 65, 4000} {
			_, _ = c.Write(b[:cut])
			_, _ = want.Write(b[:cut])
		}
		if !bytes.Equal(c.Sum(nil), want.Sum(nil)) {
			t.Fatalf("%d bytes: %x, expected %x", n, c.Sum(nil), want.Sum(nil))
		}
	}
	for bit := range 64 * 8 { // every bit counts
		one := make([]byte, 256)
		one[bit/8] = 1 << (bit % 8)
		c := newISOCRC()
		_, _ = c.Write(one)
		if c.crc != crc64.Checksum(one, table) {
			t.Fatalf("bit %d: %x, expected %x", bit, c.crc, crc64.Checksum(one, table))
		}
	}
}

func BenchmarkISOCRC(b *testing.B) {
	p := make([]byte, 1<<20)
	table := crc64.MakeTable(crc64.ISO)
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for c := newISOCRC(); b.Loop(); {
			_, _ = c.Write(p)
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for c := crc64.New(table); b.Loop(); {
			_, _ = c.Write(p)
		}
	})
}
