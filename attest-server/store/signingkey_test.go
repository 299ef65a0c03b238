package store

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// TestSigningKey: one key, whoever asks first, sealed, and never replaced in
// silence.
func TestSigningKey(t *testing.T) {
	s, path, o := newStore(t)
	other, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var wg sync.WaitGroup
	keys := make([]string, 8)
	for i := range keys {
		wg.Go(func() {
			from := s
			if i%2 == 1 {
				from = other
			}
			k, err := from.SigningKey(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			b, err := k.Bytes()
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(b)
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k == "" || k != keys[0] {
			t.Fatal("two different signing keys were made")
		}
	}
	if strings.Contains(readAll(t, path), keys[0]) {
		t.Error("the signing key lies in the store in clear")
	}
	if _, err := s.db.Exec("UPDATE meta SET value = (SELECT value FROM meta WHERE name = ?) WHERE name = ?", checkName, signingKeyName); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SigningKey(t.Context()); !errors.Is(err, ErrTampered) {
		t.Errorf("another sealed value in its place: %v", err)
	}
	locked := o
	locked.MasterKey = secret.Bytes{}
	l, err := reopen(t.Context(), path, locked)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.SigningKey(t.Context()); !errors.Is(err, ErrLocked) {
		t.Errorf("without the master key: %v", err)
	}
}
