package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
)

// nextVersion is a registration of workload id with another identity.
func nextVersion(id string, n byte) kbs.Registration {
	r := registration(id, n)
	r.IdentityDigest = kbs.Sum384(fmt.Appendf(nil, "%s, version %d", id, n))
	return r
}

func sumOf(t testing.TB, r kbs.Registration) kbs.Digest {
	t.Helper()
	b, err := kbs.Canonical(r)
	if err != nil {
		t.Fatal(err)
	}
	return kbs.Sum384(b)
}

func mustReplace(t testing.TB, s *DB, from, to kbs.Registration, key string, until time.Time) {
	t.Helper()
	if created, err := s.Replace(t.Context(), to, nil, diskKey(key), kbs.Replace{Expect: sumOf(t, from), NotAfter: until}, "token/t"); err != nil || !created {
		t.Fatalf("Replace = %v, %v", created, err)
	}
}

func released(t testing.TB, s *DB, r kbs.Registration) (string, error) {
	t.Helper()
	k, err := s.Release(t.Context(), r.WorkloadID, sumOf(t, r), Guest{Session: "s"})
	return string(k.Reveal()), err
}

// TestVersions: each version has its own key, identity and end; the key of one is
// never the other's.
func TestVersions(t *testing.T) {
	c := &clock{start}
	o := options(t)
	o.Clock = c.Now
	s, _, _ := newStoreWith(t, o)
	one, two := registration("a", 1), nextVersion("a", 2)
	mustRegister(t, s, registration("a.b", 9), "other")
	mustRegister(t, s, one, "key-1")
	mustReplace(t, s, one, two, "key-2", start.Add(time.Hour))
	for r, want := range map[*kbs.Registration]string{&one: "key-1", &two: "key-2"} {
		if k, err := released(t, s, *r); err != nil || k != want {
			t.Errorf("released %q, %v, expected %s", k, err, want)
		}
		w, err := s.VersionWith(t.Context(), "a", r.IdentityDigest)
		if err != nil || w.Digest != sumOf(t, *r) {
			t.Errorf("found by its identity: version %d, %v", w.Version, err)
		}
	}
	if w, err := s.VersionWith(t.Context(), "a", kbs.Digest{7}); err != nil || w.Version != 2 {
		t.Errorf("nobody's identity is compared with version %d, %v", w.Version, err)
	}
	for name, want := range map[string]int64{"a": 2, "a@1": 1, "a@2": 2} {
		if w, err := s.Workload(t.Context(), name); err != nil || w.Version != want {
			t.Errorf("%s is version %d, %v", name, w.Version, err)
		}
	}
	for _, name := range []string{"a@3", "a@0", "a@01", "a@", "a@1@1", "a@-1", "@1"} {
		if _, err := s.Workload(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	master, err := masterkey.New(o.Rand)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RotateMasterKey(t.Context(), master, "x"); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	c.now = start.Add(time.Hour)
	if _, err := released(t, s, one); !errors.Is(err, ErrRevoked) {
		t.Errorf("the old version is released after its end: %v", err)
	}
	if k, err := released(t, s, two); err != nil || k != "key-2" {
		t.Errorf("%q, %v", k, err)
	}
	if all, err := s.Versions(t.Context(), "a@1"); err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "a@1" || all[1].EndsAt == nil {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestReplaceRefuses: what is not the expected one is not replaced, and one
// version cannot be taken for another.
func TestReplaceRefuses(t *testing.T) {
	s, _, _ := newStore(t)
	one, two := registration("a", 1), nextVersion("a", 2)
	until := start.Add(time.Hour)
	expect := kbs.Replace{Expect: sumOf(t, one), NotAfter: until}
	if _, err := s.Replace(t.Context(), two, nil, diskKey("k"), expect, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	mustRegister(t, s, one, "key-1")
	mustRegister(t, s, registration("b", 5), "key-b")
	for name, r := range map[string]kbs.Registration{"the same measurement": nextVersion("a", 1), "another workload's": nextVersion("a", 5)} {
		var dup *DuplicateIdentityError
		if _, err := s.Replace(t.Context(), r, nil, diskKey("k"), expect, "x"); !errors.As(err, &dup) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w, err := s.Workload(t.Context(), "a"); err != nil || w.Version != 1 || w.EndsAt != nil || len(w.Versions) != 0 {
		t.Errorf("after refusals: %+v, %v", w, err)
	}
	var mu sync.Mutex
	var made int
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			created, err := s.Replace(t.Context(), nextVersion("a", byte(10+i)), nil, diskKey("k"), expect, "x")
			mu.Lock()
			defer mu.Unlock()
			if created {
				made++
			} else if !errors.Is(err, ErrChanged) {
				t.Errorf("of two at once: %v", err)
			}
		})
	}
	if wg.Wait(); made != 1 {
		t.Errorf("%d of 4 that replaced one version at once succeeded", made)
	}
	have, err := s.Workload(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if created, err := s.Replace(t.Context(), have.Registration, nil, diskKey("k"), expect, "x"); err != nil || created {
		t.Errorf("again: %v, %v", created, err)
	}
}

// TestVersionTakenBack: a build that fails takes its version back, and the one
// before is as it was.
func TestVersionTakenBack(t *testing.T) {
	s, _, _ := newStore(t)
	one, two, three := registration("a", 1), nextVersion("a", 2), nextVersion("a", 3)
	mustRegister(t, s, one, "key-1")
	until := start.Add(time.Hour)
	mustReplace(t, s, one, two, "key-2", until)
	mustReplace(t, s, two, three, "key-3", until)
	if err := s.Remove(t.Context(), "a@3", "x"); err != nil {
		t.Fatal(err)
	}
	w, err := s.Workload(t.Context(), "a")
	if err != nil || w.Version != 2 || w.EndsAt != nil {
		t.Fatalf("%+v, %v", w, err)
	}
	if _, err := released(t, s, three); !errors.Is(err, ErrChanged) {
		t.Errorf("the version taken back is released: %v", err)
	}
	if k, err := released(t, s, two); err != nil || k != "key-2" {
		t.Errorf("%q, %v", k, err)
	}
	if w, err := s.Workload(t.Context(), "a@1"); err != nil || w.EndsAt == nil {
		t.Errorf("version 1: %+v, %v", w, err)
	}
	mustReplace(t, s, two, three, "key-3", until) // its measurement is free again
	if err := s.Remove(t.Context(), "a@1", "x"); err != nil {
		t.Fatal(err)
	}
	if w, err := s.Workload(t.Context(), "a"); err != nil || w.Version != 3 {
		t.Errorf("%+v, %v", w, err)
	}
	if err := s.Remove(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Versions(t.Context(), "a"); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	mustRegister(t, s, two, "key-2")
}

// TestRevokeVersions: a workload's id means all of its versions.
func TestRevokeVersions(t *testing.T) {
	s, _, _ := newStore(t)
	one, two := registration("a", 1), nextVersion("a", 2)
	mustRegister(t, s, one, "key-1")
	mustReplace(t, s, one, two, "key-2", start.Add(time.Hour))
	if w, err := s.Revoke(t.Context(), "a@1", "x"); err != nil || w.RevokedAt == nil || w.Version != 1 {
		t.Fatalf("%+v, %v", w, err)
	}
	if _, err := released(t, s, one); !errors.Is(err, ErrRevoked) {
		t.Errorf("%v", err)
	}
	if _, err := released(t, s, two); err != nil {
		t.Errorf("the newest is revoked with the one before: %v", err)
	}
	three := nextVersion("a", 3)
	mustReplace(t, s, two, three, "key-3", start.Add(time.Hour))
	if _, err := s.Revoke(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []kbs.Registration{two, three} {
		if _, err := released(t, s, r); !errors.Is(err, ErrRevoked) {
			t.Errorf("%v", err)
		}
	}
}

// TestVersionsAreBounded: those that are over make room; if none is, nothing is
// lost without a word.
func TestVersionsAreBounded(t *testing.T) {
	c := &clock{start}
	o := options(t)
	o.Clock = c.Now
	s, _, _ := newStoreWith(t, o)
	if err := s.SetTenant(t.Context(), "acme", 1, 1, "x"); err != nil {
		t.Fatal(err)
	}
	last := registration("acme.a", 1)
	mustRegister(t, s, last, "k")
	for n := byte(2); n <= kbs.MaxVersions; n++ {
		next := nextVersion("acme.a", n)
		mustReplace(t, s, last, next, "k", start.Add(time.Hour))
		last = next
	}
	next := nextVersion("acme.a", 99)
	var full *VersionsError
	if _, err := s.Replace(t.Context(), next, nil, diskKey("k"), kbs.Replace{Expect: sumOf(t, last), NotAfter: start.Add(2 * time.Hour)}, "x"); !errors.As(err, &full) {
		t.Fatalf("%v", err)
	}
	c.now = start.Add(time.Hour)
	mustReplace(t, s, last, next, "k", start.Add(2*time.Hour))
	all, err := s.Versions(t.Context(), "acme.a")
	if err != nil || len(all) != kbs.MaxVersions || all[len(all)-1].Version != 2 {
		t.Errorf("%d versions, %v", len(all), err)
	}
}
