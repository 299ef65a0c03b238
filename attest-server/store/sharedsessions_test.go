package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestUseSessionOnce has two servers come for each nonce at once.
func TestUseSessionOnce(t *testing.T) {
	s, at, o := newStore(t)
	other, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for round := range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				err := []*DB{s, other}[i%2].UseSession(t.Context(), fmt.Sprint("s", round), start)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, ErrUsed) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d: %d used the nonce", round, won.Load())
		}
	}
}

func TestSessionGrants(t *testing.T) {
	s, at, o := newStore(t)
	other, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	a, err := s.SessionSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := other.SessionSecret(t.Context()); err != nil || !a.Equal(b) || a.Len() != sessionSecretSize {
		t.Errorf("the servers have two secrets, %v", err)
	}
	if err := s.GrantSession(t.Context(), "a", []byte("g"), start); !errors.Is(err, ErrNotFound) {
		t.Errorf("grant of a session not used: %v", err)
	}
	if _, err := other.SessionGrant(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("session not used: %v", err)
	}
	if err := s.UseSession(t.Context(), "a", start); err != nil {
		t.Fatal(err)
	}
	if g, err := other.SessionGrant(t.Context(), "a"); err != nil || g != nil {
		t.Errorf("denied: %q, %v", g, err)
	}
	if _, err := s.SpendSession(t.Context(), "a", false, 3); !errors.Is(err, ErrUsed) {
		t.Errorf("release to a denied session: %v", err)
	}
	if err := s.GrantSession(t.Context(), "a", []byte("g"), start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := other.GrantSession(t.Context(), "a", []byte("h"), start); !errors.Is(err, ErrNotFound) {
		t.Errorf("granted twice: %v", err)
	}
	if g, err := other.SessionGrant(t.Context(), "a"); err != nil || string(g) != "g" {
		t.Errorf("grant: %q, %v", g, err)
	}
	for _, resource := range []bool{false, true} {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				if _, err := []*DB{s, other}[i%2].SpendSession(t.Context(), "a", resource, 3); err == nil {
					won.Add(1)
				} else if !errors.Is(err, ErrUsed) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 3 {
			t.Errorf("%d releases of 3, resource %v", won.Load(), resource)
		}
	}
}

// TestForgottenNonceStaysUsed: once a mark may be gone, no clock that was set
// back makes its nonce good again.
func TestForgottenNonceStaysUsed(t *testing.T) {
	s, _, _ := newStore(t)
	for i, until := range []time.Duration{0, time.Second, time.Hour} {
		if err := s.UseSession(t.Context(), fmt.Sprint("s", i), start.Add(until)); err != nil {
			t.Fatal(err)
		}
	}
	if _, marks, err := s.PurgeSessions(t.Context(), start.Add(time.Minute), 100); err != nil || marks != 1 {
		t.Fatalf("%d marks left, %v", marks, err)
	}
	if _, marks, err := s.PurgeSessions(t.Context(), start, 100); err != nil || marks != 1 {
		t.Fatalf("clock set back: %d marks, %v", marks, err)
	}
	for i, until := range []time.Duration{0, time.Second, time.Hour} {
		if err := s.UseSession(t.Context(), fmt.Sprint("s", i), start.Add(until)); !errors.Is(err, ErrUsed) {
			t.Errorf("session %d used again: %v", i, err)
		}
	}
	if err := s.UseSession(t.Context(), "new", start.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	ahead := time.Now().Add(24 * time.Hour)
	if _, _, err := s.PurgeSessions(t.Context(), ahead, 100); err != nil {
		t.Fatal(err)
	}
	if err := s.UseSession(t.Context(), "today", time.Now().Add(time.Minute)); err != nil {
		t.Errorf("a clock that is ahead ended everybody's sessions: %v", err)
	}
}
