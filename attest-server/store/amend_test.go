package store

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestAmendIsAllOrNothing: what fails half way leaves every workload as it was,
// with its key; what is refused leaves that one.
func TestAmendIsAllOrNothing(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1), "key-a")
	mustRegister(t, s, registration("b", 2), "key-b")
	amendment := func(id string, was, to byte) Amendment {
		canonical, err := kbs.Canonical(registration(id, was))
		if err != nil {
			t.Fatal(err)
		}
		return Amendment{Workload: id, From: kbs.Sum384(canonical), To: registration(id, was, to)}
	}
	releases := func(id, want string) {
		t.Helper()
		w, err := s.Workload(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		k, err := s.Release(t.Context(), id, w.Digest, Guest{Session: "n"})
		if err != nil || string(k.Reveal()) != want {
			t.Errorf("%s: %q, %v", id, k.Reveal(), err)
		}
	}
	refused, err := s.Amend(t.Context(), []Amendment{amendment("a", 1, 3), amendment("b", 9, 4), amendment("c", 1, 5)}, "x")
	if err != nil || refused[0] != nil || !errors.Is(refused[1], ErrChanged) || !errors.Is(refused[2], ErrNotFound) {
		t.Fatalf("%v, %v", refused, err)
	}
	releases("a", "key-a")
	releases("b", "key-b")
	var dup *DuplicateIdentityError
	if refused, err := s.Amend(t.Context(), []Amendment{amendment("b", 2, 3)}, "x"); err != nil || !errors.As(refused[0], &dup) || dup.WorkloadID != "a" {
		t.Errorf("a's identity: %v, %v", refused, err)
	}
	mustRegister(t, s, registration("d", 6), "key-d")
	edit(t, s, "UPDATE workloads SET disk_key = x'00' WHERE id = 'd'")
	if _, err := s.Amend(t.Context(), []Amendment{amendment("b", 2, 7), amendment("d", 6, 8)}, "x"); !errors.Is(err, ErrTampered) {
		t.Errorf("a spoilt key: %v", err)
	}
	if w, err := s.Workload(t.Context(), "b"); err != nil || len(w.Registration.ReferenceValues.Measurements) != 1 {
		t.Errorf("half of it was done: %+v, %v", w, err)
	}
	mustRegister(t, s, registration("e", 7), "key-e") // nobody holds a claim on it
	releases("b", "key-b")
}
