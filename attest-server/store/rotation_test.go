package store

import (
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

func TestRotation(t *testing.T) {
	s, path, o := newStore(t)
	mustRegister(t, s, registration("a", 1), "key-a")
	w, _ := s.Workload(t.Context(), "a")
	if _, err := s.ReleaseStaged(t.Context(), "a", w.Digest, Guest{Session: "n"}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("nothing is staged: %v", err)
	}
	r, err := s.StageRotation(t.Context(), "a", "token/x")
	if err != nil || string(r.Current.Reveal()) != "key-a" || r.Staged.Len() != 64 || r.ID == "" {
		t.Fatalf("StageRotation = %+v, %v", r, err)
	}
	staged := string(r.Staged.Reveal())
	// Killed here: after a restart both keys are there, and staging goes on.
	again, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	released := func(name, current, next string) {
		t.Helper()
		k, err := again.Release(t.Context(), "a", w.Digest, Guest{Session: "n"})
		if err != nil || string(k.Reveal()) != current {
			t.Errorf("%s: Release = %q, %v", name, k.Reveal(), err)
		}
		k, err = again.ReleaseStaged(t.Context(), "a", w.Digest, Guest{Session: "n"})
		if next == "" && !errors.Is(err, ErrNotFound) || next != "" && (err != nil || string(k.Reveal()) != next) {
			t.Errorf("%s: ReleaseStaged = %q, %v", name, k.Reveal(), err)
		}
	}
	released("staged", "key-a", staged)
	same, err := again.StageRotation(t.Context(), "a", "token/y")
	if err != nil || same.ID != r.ID || string(same.Staged.Reveal()) != staged {
		t.Fatalf("staged again: %+v, %v", same, err)
	}
	if err := again.CommitRotation(t.Context(), "a", "0000", "", "x"); !errors.Is(err, ErrNoRotation) {
		t.Errorf("commit of another rotation: %v", err)
	}
	if err := again.CommitRotation(t.Context(), "a", "", "", "x"); !errors.Is(err, ErrNoRotation) {
		t.Errorf("commit of no rotation: %v", err)
	}
	for range 2 { // the answer to the first was lost
		if err := again.CommitRotation(t.Context(), "a", r.ID, "sha256:new", "x"); err != nil {
			t.Fatal(err)
		}
	}
	released("committed", staged, "")
	if w, err := again.Workload(t.Context(), "a"); err != nil || w.RotatedAt == nil || w.Image != "sha256:new" || w.Rotation != "" {
		t.Errorf("Workload = %+v, %v", w, err)
	}
	next, err := again.StageRotation(t.Context(), "a", "x")
	if err != nil || next.ID == r.ID {
		t.Fatalf("next rotation: %v", err)
	}
	if err := again.AbortRotation(t.Context(), "a", r.ID, "x"); !errors.Is(err, ErrNoRotation) {
		t.Errorf("abort of the last rotation: %v", err)
	}
	if err := again.AbortRotation(t.Context(), "a", next.ID, "x"); err != nil {
		t.Error(err)
	}
	released("aborted", staged, "")
	if err := again.CommitRotation(t.Context(), "a", next.ID, "", "x"); !errors.Is(err, ErrNoRotation) {
		t.Errorf("commit after abort: %v", err)
	}
}

func TestRotationRefuses(t *testing.T) {
	s, _, _ := newStore(t)
	if _, err := s.StageRotation(t.Context(), "a", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown workload: %v", err)
	}
	mustRegister(t, s, registration("a", 1), "key-a")
	if _, err := s.Revoke(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StageRotation(t.Context(), "a", "x"); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked workload: %v", err)
	}
}

// TestTamperedRotation: who can write the file cannot bring another key in by
// way of a rotation.
func TestTamperedRotation(t *testing.T) {
	for name, edit := range map[string]string{
		"another workload's staged key": `UPDATE workloads SET staged_key = (SELECT staged_key FROM workloads WHERE id = 'b') WHERE id = 'a'`,
		"the key in use as staged":      `UPDATE workloads SET staged_key = disk_key WHERE id = 'a'`,
		"another number":                `UPDATE workloads SET staged_rotation = 'ffff' WHERE id = 'a'`,
		"staged key cut short":          `UPDATE workloads SET staged_key = x'01' WHERE id = 'a'`,
	} {
		s, _, _ := newStore(t)
		for i, id := range []string{"a", "b"} {
			mustRegister(t, s, registration(id, byte(i+1)), "key-"+id)
			if _, err := s.StageRotation(t.Context(), id, "x"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(databasetest.Words(edit)); return err }); err != nil {
			t.Fatal(err)
		}
		w, _ := s.Workload(t.Context(), "a")
		if k, err := s.ReleaseStaged(t.Context(), "a", w.Digest, Guest{Session: "n"}); !errors.Is(err, ErrTampered) || k.Len() != 0 {
			t.Errorf("%s: ReleaseStaged = %v", name, err)
		}
		if err := s.CommitRotation(t.Context(), "a", w.Rotation, "", "x"); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: CommitRotation = %v", name, err)
		}
	}
}

func limited(t *testing.T, s *DB, l kbs.ReleaseLimits) kbs.Digest {
	t.Helper()
	r := registration("a", 1)
	r.Release = &l
	mustRegister(t, s, r, "key-a")
	w, err := s.Workload(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return w.Digest
}

// session records a granted session, as attest does before the key is asked for.
func session(t *testing.T, s *DB, number string) {
	t.Helper()
	if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: number, WorkloadID: "a", At: s.clock(), Granted: true}, true); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseLimits(t *testing.T) {
	s, _, _ := newStore(t)
	c := &clock{start}
	s.clock = c.Now
	expiry := start.Add(72 * time.Hour)
	d := limited(t, s, kbs.ReleaseLimits{Total: 4, PerDay: 2, NotAfter: &expiry})
	n := 0
	release := func(name string, want error) {
		t.Helper()
		n++
		number := fmt.Sprint("s", n)
		session(t, s, number)
		for range 3 { // lost answers
			if _, err := s.Release(t.Context(), "a", d, Guest{Session: number}); !errors.Is(err, want) {
				t.Errorf("%s: %v, expected %v", name, err, want)
			}
		}
	}
	release("first", nil)
	release("second", nil)
	release("third of two a day", ErrLimit)
	if w, _ := s.Workload(t.Context(), "a"); !errors.Is(w.CheckLimits(c.now), ErrLimit) || w.Released != 2 || w.Releases != 6 {
		t.Errorf("%+v", w)
	}
	c.now = start.Add(24 * time.Hour)
	release("next day", nil)
	c.now = start
	release("clock set back", nil) // the second of the later day
	release("clock set back, again", ErrLimit)
	c.now = start.Add(48 * time.Hour)
	release("fifth of four", ErrLimit)
	c.now = expiry
	if _, err := s.Release(t.Context(), "a", d, Guest{Session: "s1"}); !errors.Is(err, ErrLimit) {
		t.Errorf("expired, session that has the key: %v", err)
	}
	refused := 0
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		if e.Action == "key.refuse" {
			refused++
		}
		return nil
	}); err != nil || refused == 0 {
		t.Errorf("%d refusals audited, %v", refused, err)
	}
}

// TestOnceUnderRace lets many guests come for the one release there is.
func TestOnceUnderRace(t *testing.T) {
	s, path, o := newStore(t)
	d := limited(t, s, kbs.ReleaseLimits{Total: 1})
	other, err := reopen(t.Context(), path, o) // a second server on the same store
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]bool{}
	for i := range 32 {
		number := fmt.Sprint("s", i)
		session(t, s, number)
		wg.Go(func() {
			for range 2 {
				_, err := []*DB{s, other}[i%2].Release(t.Context(), "a", d, Guest{Session: number})
				switch {
				case err == nil:
					mu.Lock()
					got[number] = true
					mu.Unlock()
				case !errors.Is(err, ErrLimit):
					t.Errorf("%s: %v", number, err)
				}
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Errorf("%d sessions got the key, expected 1", len(got))
	}
}
