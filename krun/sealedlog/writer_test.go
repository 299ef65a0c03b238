package sealedlog

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func (w *world) writer(t testing.TB, to io.Writer) *Writer {
	t.Helper()
	wr, err := NewWriter(w.boot(t), to, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return wr
}

// TestExactBytes: both streams come out as they went in, whatever is in them and
// however they were written, and no line is longer than what logs take.
func TestExactBytes(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	binary := make([]byte, 300<<10)
	for i := range binary {
		binary[i] = byte(rnd.Uint32())
	}
	for name, text := range map[string][]byte{
		"binary": binary, "a megabyte without an end": bytes.Repeat([]byte{'x'}, 1<<20),
		"newlines": bytes.Repeat([]byte{'\n'}, 10_000), "zeros": make([]byte, 50_000),
		"what looks like a line": []byte("[ccl1.AAAAAAAAAAAAAAAA.0.AAAA]\n"), "empty": nil,
	} {
		var log, out, err bytes.Buffer
		wr := w.writer(t, &log)
		for rest := text; len(rest) > 0; {
			n := min(len(rest), 1+rnd.IntN(70_000))
			if rnd.IntN(3) == 0 {
				n = 1
			}
			k, to := Stdout, &out
			if rnd.IntN(2) == 0 {
				k, to = Stderr, &err
			}
			to.Write(rest[:n])
			if got, e := wr.Stream(k).Write(rest[:n]); got != n || e != nil {
				t.Fatalf("%s: wrote %d of %d: %v", name, got, n, e)
			}
			if rnd.IntN(20) == 0 {
				_ = wr.Flush()
			}
			rest = rest[n:]
		}
		if e := wr.Close(End{}); e != nil {
			t.Fatal(e)
		}
		s := w.read(log.String())
		if s.out.String() != out.String() || s.err.String() != err.String() || len(s.troubles) != 0 || !s.tail.Ended {
			t.Errorf("%s: streams of %d and %d bytes came out as %d and %d, %v", name, out.Len(), err.Len(), s.out.Len(), s.err.Len(), s.troubles)
		}
		for l := range strings.Lines(log.String()) {
			if len(l) > MaxLineBytes || strings.ContainsFunc(l, func(r rune) bool { return r != '\n' && (r < '!' || r > '~') }) {
				t.Fatalf("%s: line of %d bytes, or of other than plain text: %.60q", name, len(l), l)
			}
		}
	}
}

// TestByteByByte: a program that writes byte by byte costs no record for each.
func TestByteByByte(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	wr := w.writer(t, &log)
	wr.now = func() time.Time { return time.Unix(1, 0) }
	for range 10_000 {
		_, _ = wr.Stream(Stdout).Write([]byte{'x'})
	}
	_ = wr.Close(End{})
	if log.Len() > 16_000+len(wr.keyLine) {
		t.Errorf("10000 bytes, one by one, became %d", log.Len())
	}
}

// TestKeyComesAgain: of a log of which only the end is kept, a part can be read,
// and the gap is named.
func TestKeyComesAgain(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	wr := w.writer(t, &log)
	for range 40 {
		_, _ = wr.Stream(Stdout).Write(bytes.Repeat([]byte("0123456789abcde\n"), 500))
		_ = wr.Flush()
	}
	kept := log.String()[log.Len()-keyEvery-2*MaxLineBytes:]
	s := w.read(kept)
	if s.out.Len() < keyEvery/2 || len(s.troubles) != 1 || s.troubles[0].Fault != Missing || s.troubles[0].First != 0 || s.troubles[0].Before.IsZero() {
		t.Errorf("%d bytes read of the last %d, %v", s.out.Len(), len(kept), s.troubles)
	}
	if share := strings.Count(log.String(), string(wr.keyLine)) * len(wr.keyLine); share > log.Len()/keyShare {
		t.Errorf("keys are %d of %d bytes", share, log.Len())
	}
}

// TestWriterFails: after an error below it nothing is written any more, so that
// no frame seems to be left out by the host, and writers learn of it.
func TestWriterFails(t *testing.T) {
	w := newWorld(t)
	to := &failAfter{n: 1}
	wr := w.writer(t, to)
	_, _ = wr.Stream(Stdout).Write([]byte("x"))
	if err := wr.Flush(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("flush: %v", err)
	}
	if _, err := wr.Stream(Stdout).Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write: %v", err)
	}
	if err := wr.Close(End{}); err == nil || to.calls != 2 {
		t.Errorf("close: %v, after %d writes", err, to.calls)
	}
	wr = w.writer(t, io.Discard)
	if err := wr.Close(End{}); err != nil {
		t.Fatal(err)
	}
	if _, err := wr.Stream(Stdout).Write([]byte("x")); !errors.Is(err, errEnded) {
		t.Errorf("write after the end: %v", err)
	}
}

type failAfter struct{ n, calls int }

func (f *failAfter) Write(p []byte) (int, error) {
	if f.calls++; f.calls > f.n {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// TestLongEnd: an error of any length fits into the last frame.
func TestLongEnd(t *testing.T) {
	w := newWorld(t)
	for _, text := range []string{strings.Repeat("x", 1<<20), strings.Repeat("\x00", 1<<20), strings.Repeat("ü", 20_000)} {
		var log bytes.Buffer
		wr := w.writer(t, &log)
		_, _ = wr.Stream(Stdout).Write(bytes.Repeat([]byte{'y'}, 16_000))
		if err := wr.Close(End{Status: 125, Error: text}); err != nil {
			t.Fatal(err)
		}
		s := w.read(log.String())
		if len(s.ends) != 1 || s.ends[0].Status != 125 || len(s.ends[0].Error) < 1000 || len(s.troubles) > 0 {
			t.Errorf("%d ends, %v", len(s.ends), s.troubles)
		}
	}
}

// TestWriterMemory: a stream without an end takes no more memory than a short
// one.
func TestWriterMemory(t *testing.T) {
	size := 64 << 20
	if os.Getenv("CCRUN_LONG") == "1" {
		size = 1 << 30
	}
	w := newWorld(t)
	wr := w.writer(t, io.Discard)
	piece := bytes.Repeat([]byte{'x'}, 64<<10)
	write := func(n int) (allocated uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for done := 0; done < n; done += len(piece) {
			if _, err := wr.Stream(Stdout).Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	write(1 << 20)
	if got := write(size); got > uint64(size/20) {
		t.Errorf("%d bytes on one line allocated %d", size, got)
	}
}

func BenchmarkWriter(b *testing.B) {
	w := newWorld(b)
	wr := w.writer(b, io.Discard)
	line := []byte("2026-12-01T04:45:12Z INFO request handled path=/api/v1/orders status=200 duration=1.2ms\n")
	piece := bytes.Repeat(line, 64<<10/len(line))
	b.SetBytes(int64(len(piece)))
	for b.Loop() {
		_, _ = wr.Stream(Stdout).Write(piece)
	}
}

func BenchmarkReader(b *testing.B) {
	w := newWorld(b)
	var log bytes.Buffer
	wr := w.writer(b, &log)
	piece := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	for range 64 {
		_, _ = wr.Stream(Stdout).Write(piece)
	}
	_ = wr.Close(End{})
	b.SetBytes(int64(64 * len(piece)))
	for b.Loop() {
		if s := w.read(log.String()); !s.tail.Ended {
			b.Fatal("not read to its end")
		}
	}
}
