package masterkey

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// FuzzSealedValue: nothing but what seal made opens, and only in its place.
func FuzzSealedValue(f *testing.F) {
	o := secret.New([]byte(strings.Repeat("k", Size)))
	s, err := NewSealer(o, strings.NewReader(strings.Repeat("r", 1000)))
	if err != nil {
		f.Fatal(err)
	}
	good, err := s.Seal(secret.New([]byte("plain")), Location("a", "b"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "a", "b")
	f.Add(good[:minSealed], "a", "b")
	f.Add([]byte{}, "", "")
	f.Fuzz(func(t *testing.T, b []byte, x, y string) {
		p, err := s.Open(b, Location(x, y))
		ours := string(b) == string(good) && x == "a" && y == "b"
		if (err == nil) != ours || (ours && string(p.Reveal()) != "plain") {
			t.Fatalf("open(%x, %q, %q) = %v", b, x, y, err)
		}
	})
}

// TestSealerFollows: after a change of MasterKey the new one seals, what was
// sealed before still opens, and only the new one counts as in use.
func TestSealerFollows(t *testing.T) {
	sealer := func() *Sealer {
		k, err := New(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSealer(k, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, next, where, plain := sealer(), sealer(), Location("a"), secret.New([]byte("plain"))
	holds := func(s *Sealer, sealed []byte) bool {
		got, err := s.OpenCurrent(sealed, where)
		return err == nil && got.Equal(plain)
	}
	before, err := s.Seal(plain, where)
	if err != nil || !holds(s, before) || holds(next, before) {
		t.Fatalf("sealed under another key, %v", err)
	}
	rewrapped, err := s.Rewrap(before, where, next)
	if err != nil || holds(s, rewrapped) || !holds(next, rewrapped) {
		t.Errorf("rewrapped under another key, %v", err)
	}
	if _, err := s.Rewrap(before, Location("b"), next); !errors.Is(err, ErrSealed) {
		t.Errorf("rewrapped in another place: %v", err)
	}
	s.Follow(next)
	if got, err := s.Open(before, where); err != nil || !got.Equal(plain) {
		t.Errorf("sealed before: %v", err)
	}
	if holds(s, before) || !holds(s, rewrapped) {
		t.Error("the key before counts as in use")
	}
	after, err := s.Seal(plain, where)
	if err != nil || !holds(next, after) {
		t.Errorf("sealed under the key before, %v", err)
	}
	if _, err := NewSealer(secret.New(make([]byte, Size-1)), rand.Reader); err == nil {
		t.Error("a short MasterKey seals")
	}
	var none *Sealer
	if _, err := none.Seal(plain, where); !errors.Is(err, ErrLocked) {
		t.Errorf("sealed without a MasterKey: %v", err)
	}
	if _, err := none.Open(before, where); !errors.Is(err, ErrLocked) {
		t.Errorf("opened without a MasterKey: %v", err)
	}
}
