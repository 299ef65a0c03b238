package sums

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
	"sync"
	"testing"
)

// group is one that pairs, if the CPU can at all.
func group(t testing.TB) *Group {
	if _, ok := New(With(t.Context())).(*stream); !ok {
		t.Skip("this CPU gains nothing by two messages at once")
	}
	return &Group{pairs: true}
}

// write writes b in pieces of all kinds of lengths.
func write(h hash.Hash, b []byte, r *rand.Rand) {
	for len(b) > 0 {
		k := min(1+r.IntN(1<<r.IntN(19)), len(b))
		_, _ = h.Write(b[:k])
		b = b[k:]
	}
}

// TestTogether: streams of all lengths, hashed at the same time, come to what
// the standard library says of each.
func TestTogether(t *testing.T) {
	g := group(t)
	for round := range 20 {
		var wg sync.WaitGroup
		for i := range 1 + round%5 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(i)))
				b := make([]byte, r.IntN(1<<r.IntN(23)))
				for j := range b {
					b[j] = byte(r.Uint32())
				}
				h, want := g.hash(), sha256.Sum256(b)
				write(h, b, r)
				if got := h.Sum([]byte{7}); !bytes.Equal(got, append([]byte{7}, want[:]...)) {
					t.Errorf("round %d, stream %d, %d bytes: %x, expected %x", round, i, len(b), got, want)
				}
				h.Reset()
				_, _ = h.Write([]byte("abc"))
				if want = sha256.Sum256([]byte("abc")); !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("round %d, stream %d: wrong after Reset", round, i)
				}
			})
		}
		wg.Wait()
		if g.alone != nil {
			t.Fatal("a stream was left behind")
		}
	}
}

// TestBeside: two streams of different lengths, hashed beside each other for
// certain.
func TestBeside(t *testing.T) {
	g := group(t)
	long, short := bytes.Repeat([]byte("0123456789abcdef"), 9*step/16), bytes.Repeat([]byte("short "), 2*step/6&^63)
	short = short[:len(short)&^(blockBytes-1)]
	a, b := g.hash().(*stream), g.hash().(*stream)
	a.todo, b.todo, a.length, b.length = long, short, uint64(len(long)), uint64(len(short))
	for len(b.todo) > 0 {
		a.advance(b)
	}
	for len(a.todo) > 0 {
		a.advance(nil)
	}
	wantLong, wantShort := sha256.Sum256(long), sha256.Sum256(short)
	if !bytes.Equal(a.Sum(nil), wantLong[:]) || !bytes.Equal(b.Sum(nil), wantShort[:]) {
		t.Errorf("%x and %x, expected %x and %x", a.Sum(nil), b.Sum(nil), wantLong, wantShort)
	}
}

// TestLengths: padding, for each length of two blocks.
func TestLengths(t *testing.T) {
	g := group(t)
	b := bytes.Repeat([]byte("0123456789"), 14)
	for n := range 2*blockBytes + 2 {
		h, want := g.hash(), sha256.Sum256(b[:n])
		_, _ = h.Write(b[:n])
		if !bytes.Equal(h.Sum(nil), want[:]) {
			t.Errorf("%d bytes: wrong", n)
		}
	}
}

// TestWithoutGroup: what nobody put in a group is hashed all the same.
func TestWithoutGroup(t *testing.T) {
	want := fmt.Sprintf("%x", sha256.Sum256([]byte("abc")))
	for name, h := range map[string]hash.Hash{"no group": New(t.Context()), "zero": (&Group{}).hash(), "nil": (*Group)(nil).hash(), "group": New(With(t.Context()))} {
		_, _ = h.Write([]byte("abc"))
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
			t.Errorf("%s: %s, expected %s", name, got, want)
		}
	}
}
