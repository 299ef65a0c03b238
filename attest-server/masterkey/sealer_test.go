package masterkey

import (
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
