package luks

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/ccrun/ccrun/secret"
)

func options(workers int) WriterOptions {
	return WriterOptions{KDF: FastKDF(), Rand: seeded(2), Workers: workers}
}

func TestWriterIsDeterministic(t *testing.T) {
	const n = 9<<20 + 4096
	g := mustGeometry(t, n, true)
	vk, plain := mustKey(t, g), plaintext(n)
	want := mustDisk(t, g, vk, plain)
	for _, workers := range []int{1, 3, 16} {
		var out bytes.Buffer
		w, err := NewWriter(&out, g, vk, testPassphrase(), options(workers))
		if err != nil {
			t.Fatal(err)
		}
		// ReadFrom and odd-sized writes must give the same bytes as one Write.
		if _, err := w.ReadFrom(iotest.HalfReader(bytes.NewReader(plain[:5<<20+17]))); err != nil {
			t.Fatal(err)
		}
		for rest := plain[5<<20+17:]; len(rest) > 0; {
			c := min(100_003, len(rest))
			if _, err := w.Write(rest[:c]); err != nil {
				t.Fatal(err)
			}
			rest = rest[c:]
		}
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("%d workers give another disk", workers)
		}
	}
}

// TestFormatIsStable pins the bytes of two disks. The layout is the one that
// Linux 6.1 and 6.12 and cryptsetup 2.6.1 have opened and written to.
func TestFormatIsStable(t *testing.T) {
	for integrity, want := range map[bool]string{
		true:  "7d8461bc75e1fdd7ef948f04abacb031c532b3d21b3e067d2c201543a5670479",
		false: "80edb9dd653a700d56d47058a4c8d4444ec60b87ebc9339d88d090f9c593b8e2",
	} {
		_, _, disk := smallDisk(t, integrity)
		if got := fmt.Sprintf("%x", sha256.Sum256(disk)); got != want {
			t.Errorf("integrity %v: disk %s, expected %s", integrity, got, want)
		}
	}
}

func TestWriterRefusesWrongLengths(t *testing.T) {
	g := mustGeometry(t, 8192, true)
	vk := mustKey(t, g)
	for _, n := range []int{0, 1, 4096, 8191} {
		w, err := NewWriter(io.Discard, g, vk, testPassphrase(), options(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if w.Close() == nil {
			t.Errorf("%d of 8192 bytes: Close succeeds", n)
		}
	}
	for name, feed := range map[string]func(*Writer) error{
		"Write":    func(w *Writer) error { _, err := w.Write(make([]byte, 8193)); return err },
		"ReadFrom": func(w *Writer) error { _, err := w.ReadFrom(bytes.NewReader(make([]byte, 8193))); return err },
	} {
		w, err := NewWriter(io.Discard, g, vk, testPassphrase(), options(1))
		if err != nil {
			t.Fatal(err)
		}
		if feed(w) == nil {
			t.Errorf("%s accepts more than PlainBytes", name)
		}
		_ = w.Close()
		if _, err := w.Write([]byte{0}); err == nil {
			t.Errorf("%s: write after Close succeeds", name)
		}
	}
}

func TestWriterRefusesZeroValues(t *testing.T) {
	g := mustGeometry(t, 8192, true)
	vk := mustKey(t, g)
	for name, try := range map[string]func() (*Writer, error){
		"geometry":   func() (*Writer, error) { return NewWriter(io.Discard, Geometry{}, vk, testPassphrase(), options(1)) },
		"key":        func() (*Writer, error) { return NewWriter(io.Discard, g, &VolumeKey{}, testPassphrase(), options(1)) },
		"nil key":    func() (*Writer, error) { return NewWriter(io.Discard, g, nil, testPassphrase(), options(1)) },
		"passphrase": func() (*Writer, error) { return NewWriter(io.Discard, g, vk, secret.Bytes{}, options(1)) },
		"KDF": func() (*Writer, error) {
			return NewWriter(io.Discard, g, vk, testPassphrase(), WriterOptions{Rand: seeded(1)})
		},
		"rand": func() (*Writer, error) {
			return NewWriter(io.Discard, g, vk, testPassphrase(), WriterOptions{KDF: FastKDF()})
		},
		"short rand": func() (*Writer, error) {
			return NewWriter(io.Discard, g, vk, testPassphrase(), WriterOptions{KDF: FastKDF(), Rand: io.LimitReader(seeded(1), 1000)})
		},
	} {
		if _, err := try(); err == nil {
			t.Errorf("zero %s accepted", name)
		}
	}
}

// failAfter fails once n bytes have been written.
type failAfter struct{ n int }

var errDiskFull = errors.New("disk full")

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errDiskFull
	}
	return len(p), nil
}

func TestWriterReportsOutputErrors(t *testing.T) {
	const n = 24 << 20
	g := mustGeometry(t, n, true)
	vk := mustKey(t, g)
	for _, room := range []int{0, 1<<20 + 8192, 8 << 20} {
		w, err := NewWriter(&failAfter{room}, g, vk, testPassphrase(), options(2))
		if err == nil {
			_, err = io.Copy(w, io.LimitReader(seeded(3), n))
			if cerr := w.Close(); !errors.Is(cerr, errDiskFull) {
				t.Errorf("room for %d: Close says %v", room, cerr)
			}
			if err == nil {
				t.Errorf("room for %d: 24 MiB were accepted", room)
			}
		}
		if !errors.Is(err, errDiskFull) {
			t.Errorf("room for %d: %v", room, err)
		}
	}
}

// benchSuites are a geometry of n bytes for each way to encrypt.
func benchSuites(b *testing.B, n int64) map[string]Geometry {
	return map[string]Geometry{"plain": mustGeometry(b, n, false), "hmac": mustGeometry(b, n, true), "aegis128": aegisGeometry(b, n)}
}

func BenchmarkWriter(b *testing.B) {
	const n = 64 << 20
	for name, g := range benchSuites(b, n) {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(b *testing.B) {
				vk, chunk := mustKey(b, g), plaintext(1<<20)
				b.SetBytes(n)
				for b.Loop() {
					w, err := NewWriter(io.Discard, g, vk, testPassphrase(), options(workers))
					if err != nil {
						b.Fatal(err)
					}
					for range n / len(chunk) {
						if _, err := w.Write(chunk); err != nil {
							b.Fatal(err)
						}
					}
					if err := w.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSector(b *testing.B) {
	for name, g := range benchSuites(b, 4096) {
		b.Run(name, func(b *testing.B) {
			c, err := newSectorCipher(&g, mustKey(b, g))
			if err != nil {
				b.Fatal(err)
			}
			buf, tags := make([]byte, pieceBytes), make([]byte, pieceBytes/4096*macTagBytes)
			b.SetBytes(pieceBytes)
			b.ReportAllocs()
			for b.Loop() {
				c.seal(buf, tags, 8, 4096)
			}
		})
	}
}
