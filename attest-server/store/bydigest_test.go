package store

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestWorkloadByDigest(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1, 2), "key-a")
	legacy := registration("b", 3)
	legacy.Type, legacy.IdentityDigest, legacy.FooterDigest = kbs.TypeLegacy, kbs.Digest{}, kbs.Digest{}
	mustRegister(t, s, legacy, "key-b")
	for digest, want := range map[byte]string{1: "a", 2: "a", 3: "b"} {
		w, err := s.WorkloadByDigest(t.Context(), kbs.LaunchDigest{digest})
		if err != nil || w.Registration.WorkloadID != want || w.Digest.IsZero() {
			t.Errorf("digest %d: %+v, %v", digest, w, err)
		}
	}
	for _, d := range []kbs.LaunchDigest{{}, {9}} {
		if w, err := s.WorkloadByDigest(t.Context(), d); !errors.Is(err, ErrNotFound) {
			t.Errorf("digest %s: %+v, %v", d, w, err)
		}
	}
	if err := s.Remove(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	if w, err := s.WorkloadByDigest(t.Context(), kbs.LaunchDigest{1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %+v, %v", w, err)
	}
}
