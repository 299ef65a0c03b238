package luks

import (
	"crypto/aes"
	"crypto/sha256"
	"testing"
	"time"

	xcrypto "golang.org/x/crypto/xts"
)

// BenchmarkXTS is AES-256-XTS alone, 4096-byte sectors, beside what others
// use, and beside SHA-256, which a build cannot do without. One core.
func BenchmarkXTS(b *testing.B) {
	key := plaintext(64)
	x, err := newXTS(key)
	if err != nil {
		b.Fatal(err)
	}
	portable, err := newXTS(key)
	if err != nil {
		b.Fatal(err)
	}
	portable.fast = fastBlocks{}
	ref, err := xcrypto.NewCipher(aes.NewCipher, key)
	if err != nil {
		b.Fatal(err)
	}
	var s xtsScratch
	buf := make([]byte, 4096)
	all := []struct {
		name string
		do   func()
	}{
		{"ours", func() { x.encrypt(buf, 8, &s) }},
		{"portable", func() { portable.encrypt(buf, 8, &s) }},
		{"xcrypto", func() { ref.Encrypt(buf, buf, 8) }},
		{"sha256", func() { sha256.Sum256(buf) }},
	}
	const sectors = 64
	spent := make([]time.Duration, len(all))
	b.SetBytes(sectors * 4096 * int64(len(all)))
	for b.Loop() { // each in turn, so that load hits all alike
		for i, c := range all {
			start := time.Now()
			for range sectors {
				c.do()
			}
			spent[i] += time.Since(start)
		}
	}
	for i, c := range all {
		b.ReportMetric(float64(spent[i])/float64(spent[0]), c.name+"-x-ours")
		b.ReportMetric(float64(b.N)*sectors*4096/spent[i].Seconds()/1e9, c.name+"-GB/s")
	}
}
