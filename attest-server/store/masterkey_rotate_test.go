package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// TestRotateMasterKeyWhileServing changes the MasterKey under a server that
// registers and releases: nothing fails, nothing is lost, the old key opens
// nothing any more.
func TestRotateMasterKeyWhileServing(t *testing.T) {
	s, path, o := newStore(t)
	if _, err := s.SigningKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, registration("staged", 200), "k")
	r, err := s.StageRotation(t.Context(), "staged", "x")
	if err != nil {
		t.Fatal(err)
	}
	id := resourceID(t, "a/b/c")
	for i := range 3 {
		if _, err := s.PutResource(t.Context(), id, kbs.ResourcePolicy{Workloads: []string{"staged"}}, diskKey(fmt.Sprint("v", i)), anyone); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		setEnv(t, s, "staged", "A", fmt.Sprint("v", i))
	}
	next, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.master.reload = func() ([]secret.Bytes, error) { // copies: the store wipes them
		return []secret.Bytes{secret.New(append([]byte(nil), o.MasterKey.Reveal()...)), secret.New(append([]byte(nil), next.Reveal()...))}, nil
	}
	admin, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := range 10 {
				id := fmt.Sprintf("w%d-%d", c, i)
				reg := registration(id)
				reg.ReferenceValues.Measurements = []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{1, byte(c), byte(i)}}}
				if _, err := s.Register(t.Context(), reg, nil, diskKey("key-"+id), "x"); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				w, _ := s.Workload(t.Context(), id)
				if k, err := s.Release(t.Context(), id, w.Digest, Guest{Session: "n"}); err != nil || string(k.Reveal()) != "key-"+id {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	if err := admin.RotateMasterKey(t.Context(), next, "local"); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := reopen(t.Context(), path, o); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("old master key: %v", err)
	}
	o.MasterKey = next
	fresh, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	for c := range 4 {
		for i := range 10 {
			id := fmt.Sprintf("w%d-%d", c, i)
			w, err := fresh.Workload(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if k, err := fresh.Release(t.Context(), id, w.Digest, Guest{Session: "n"}); err != nil || string(k.Reveal()) != "key-"+id {
				t.Errorf("%s lost: %v", id, err)
			}
		}
	}
	w, _ := fresh.Workload(t.Context(), "staged")
	if k, err := fresh.ReleaseStaged(t.Context(), "staged", w.Digest, Guest{Session: "n"}); err != nil || !k.Equal(r.Staged) {
		t.Errorf("staged key: %v", err)
	}
	if v, err := fresh.ReleaseResource(t.Context(), id, "staged", w.Digest, "n"); err != nil || string(v.Reveal()) != "v2" {
		t.Errorf("resource: %v", err)
	}
	if raw, err := fresh.ReleaseConfig(t.Context(), "staged", w.Digest, "n"); err != nil || string(raw.Reveal()) != `{"env":{"A":"v2"}}` {
		t.Errorf("configuration: %v", err)
	}
	if _, err := fresh.SigningKey(t.Context()); err != nil {
		t.Error(err)
	}
	if err := fresh.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOldMasterKeyWritesNothing: a server that cannot find the new MasterKey
// must refuse to write rather than seal under the old one.
func TestOldMasterKeyWritesNothing(t *testing.T) {
	s, path, o := newStore(t)
	next, _ := masterkey.New(rand.Reader)
	admin, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.RotateMasterKey(t.Context(), next, "local"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, admin, registration("b", 2), "k")
	if _, err := s.Register(t.Context(), registration("a", 1), nil, diskKey("k"), "x"); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("Register = %v", err)
	}
	if _, err := s.Workload(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("refused registration is there: %v", err)
	}
	edit(t, admin, "INSERT INTO meta(name, value) VALUES('a later version''s', x'00')")
	if err := admin.RotateMasterKey(t.Context(), next, "local"); err == nil {
		t.Error("rotated over a value of unknown form")
	}
}

func TestSnapshot(t *testing.T) {
	s, _, o := newStore(t)
	mustRegister(t, s, registration("a", 1), "key-a")
	path := filepath.Join(t.TempDir(), "copy")
	var wg sync.WaitGroup
	wg.Go(func() { // it goes on serving
		for i := range 20 {
			reg := registration(fmt.Sprint("w", i), byte(i+10))
			if _, err := s.Register(t.Context(), reg, nil, diskKey("k"), "x"); err != nil {
				t.Error(err)
			}
		}
	})
	if err := s.Snapshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := s.Snapshot(t.Context(), path); err == nil {
		t.Error("wrote over a file")
	}
	c, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	w, err := c.Workload(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if k, err := c.Release(t.Context(), "a", w.Digest, Guest{Session: "n"}); err != nil || string(k.Reveal()) != "key-a" {
		t.Errorf("Release = %v", err)
	}
}
