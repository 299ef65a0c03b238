package store

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// TestKeyThatDoesNotOpenIsNoRelease: nothing says that a key was released, and
// no limit is used up, if it could not be opened.
func TestKeyThatDoesNotOpenIsNoRelease(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	mustRegister(t, s, registration("x", 2), "k")
	edit(t, s, "UPDATE workloads SET disk_key = (SELECT disk_key FROM workloads WHERE id = 'x') WHERE id = 'w'")
	w, err := s.Workload(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(t.Context(), "w", w.Digest, Guest{Session: "n"}); !errors.Is(err, ErrTampered) {
		t.Errorf("Release = %v", err)
	}
	if w, err = s.Workload(t.Context(), "w"); err != nil || w.Releases != 0 {
		t.Errorf("%d releases counted, %v", w.Releases, err)
	}
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		if e.Action == "key.release" {
			t.Errorf("audited: %+v", e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestStartDuringRotation: a server that opened the store under the old
// MasterKey, and finds a value under the next, follows.
func TestStartDuringRotation(t *testing.T) {
	s, path, o := newStore(t)
	if _, err := s.SigningKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	next, err := masterkey.New(o.Rand)
	if err != nil {
		t.Fatal(err)
	}
	late := o
	late.ReloadMasterKeys = func() ([]secret.Bytes, error) {
		return []secret.Bytes{secret.New(append([]byte(nil), next.Reveal()...))}, nil
	}
	starting, err := reopen(t.Context(), path, late)
	if err != nil {
		t.Fatal(err)
	}
	defer starting.Close()
	if err := s.RotateMasterKey(t.Context(), next, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := starting.SigningKey(t.Context()); err != nil {
		t.Errorf("SigningKey = %v", err)
	}
}

// TestStartBetweenRotations: the MasterKey is changed after a server that starts
// has read what the store is under, and before it has read the keys.
func TestStartBetweenRotations(t *testing.T) {
	s, path, o := newStore(t)
	var keys [3]secret.Bytes
	for i := range keys {
		var err error
		if keys[i], err = masterkey.New(o.Rand); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RotateMasterKey(t.Context(), keys[1], "x"); err != nil {
		t.Fatal(err)
	}
	late, asked := o, 0
	late.MasterKey = keys[0]
	late.ReloadMasterKeys = func() ([]secret.Bytes, error) {
		if asked++; asked == 1 {
			if err := s.RotateMasterKey(t.Context(), keys[2], "x"); err != nil {
				t.Error(err)
			}
		}
		return []secret.Bytes{secret.New(append([]byte(nil), keys[2].Reveal()...))}, nil
	}
	starting, err := reopen(t.Context(), path, late)
	if err != nil {
		t.Fatal(err)
	}
	defer starting.Close()
	late.ReloadMasterKeys = func() ([]secret.Bytes, error) { asked++; return nil, errors.New("none") }
	asked = 0
	if _, err := reopen(t.Context(), path, late); !errors.Is(err, ErrWrongMasterKey) || asked > 2 {
		t.Errorf("with a wrong key, asked %d times: %v", asked, err)
	}
}
