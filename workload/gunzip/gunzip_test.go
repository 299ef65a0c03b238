package gunzip

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func pack(t testing.TB, level int, content []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// samples are contents that use all kinds of blocks, codes and distances.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	noise, words, runs := make([]byte, 700_001), []byte{}, []byte{}
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for len(words) < 900_000 {
		at := r.IntN(5000)
		words = append(words, noise[at:at+r.IntN(40)]...)
		words = fmt.Appendf(words, "%d", r.IntN(1000))
	}
	for len(runs) < 600_000 {
		runs = append(runs, bytes.Repeat(noise[r.IntN(99):][:1+r.IntN(12)], 1+r.IntN(400))...)
	}
	far := append(bytes.Clone(noise[:windowBytes]), noise[:windowBytes]...)
	return map[string][]byte{"empty": {}, "one": {7}, "zeros": make([]byte, 3<<20), "noise": noise, "words": words, "runs": runs, "far": far,
		"chunk": words[:chunkBytes], "chunks": append(bytes.Clone(noise[:chunkBytes]), words[:chunkBytes]...)}
}

func TestReader(t *testing.T) {
	for name, content := range samples() {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression} {
			z := pack(t, level, content)
			for kind, r := range map[string]io.Reader{"whole": bytes.NewReader(z), "byte by byte": iotest.OneByteReader(bytes.NewReader(z)), "end with data": iotest.DataErrReader(bytes.NewReader(z))} {
				got, err := io.ReadAll(NewReader(r))
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%s, level %d, %s: %d bytes, %v; expected %d bytes as they were", name, level, kind, len(got), err, len(content))
				}
			}
		}
	}
}

// TestHeaders: every optional part, and several members.
func TestHeaders(t *testing.T) {
	var b bytes.Buffer
	for _, content := range []string{"first, ", "second, ", "", "third"} {
		w := gzip.NewWriter(&b)
		w.Extra, w.Name, w.Comment = bytes.Repeat([]byte{1}, 300), "name", "comment"
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(NewReader(&b))
	if err != nil || string(got) != "first, second, third" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestDamage: no flipped bit and no cut passes for the content.
func TestDamage(t *testing.T) {
	content := samples()["words"][:20_000]
	z := pack(t, 9, content)
	for n := range z {
		if got, err := io.ReadAll(NewReader(bytes.NewReader(z[:n]))); err == nil || !bytes.HasPrefix(content, got) {
			t.Fatalf("cut to %d of %d bytes: %d bytes, %v", n, len(z), len(got), err)
		}
	}
	for i := 10; i < len(z); i += 7 { // what is in the header does not count
		bad := bytes.Clone(z)
		bad[i] ^= 1 << (i % 8)
		if _, err := io.ReadAll(NewReader(bytes.NewReader(bad))); !errors.Is(err, ErrFormat) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
	}
	if _, err := io.ReadAll(NewReader(bytes.NewReader(append(z, "more"...)))); !errors.Is(err, ErrFormat) {
		t.Errorf("something behind the last member: %v", err)
	}
}

// TestSourceError: what the source says arrives as it is, also if it looks like
// our own.
func TestSourceError(t *testing.T) {
	z := pack(t, 6, samples()["noise"])
	for _, want := range []error{io.ErrUnexpectedEOF, errors.New("connection lost")} {
		r := NewReader(io.MultiReader(bytes.NewReader(z[:len(z)/2]), iotest.ErrReader(want)))
		if _, err := io.ReadAll(r); err != want {
			t.Errorf("got %v, expected %v", err, want)
		}
	}
}

// endless counts how often it is read.
type endless struct {
	content []byte
	at      int
	reads   int
}

func (e *endless) Read(p []byte) (int, error) {
	e.reads++
	n := copy(p, e.content[e.at:])
	e.at = (e.at + n) % len(e.content)
	return n, nil
}

// TestClose: a reader that is given up leaves its source alone, and says no more.
func TestClose(t *testing.T) {
	src := &endless{content: pack(t, 0, make([]byte, 100_000))}
	z := NewReader(src)
	if _, err := io.ReadFull(z, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	reads := src.reads
	if n, err := z.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("read after Close: %d bytes, %v", n, err)
	}
	if err := z.Close(); err != nil || src.reads != reads {
		t.Errorf("closed again: %v; the source was read %d times more", err, src.reads-reads)
	}
}

// FuzzReader: what compress/gzip takes, and only that, with the same content.
func FuzzReader(f *testing.F) {
	for _, content := range samples() {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 9} {
			f.Add(pack(f, level, content[:min(len(content), 3000)]))
		}
	}
	f.Fuzz(func(t *testing.T, z []byte) {
		want, wantErr := readAll(z)
		got, err := io.ReadAll(NewReader(bytes.NewReader(z)))
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v; expected %d bytes, %v", len(got), err, len(want), wantErr)
		}
	})
}

func readAll(z []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(z))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
