package store

import (
	"context"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// TestGuestsWaitForNoOwner: with every connection of owners and auditors in
// use, and all of their writes waiting, guests read and write.
func TestGuestsWaitForNoOwner(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	for _, x := range []struct {
		of    *DB
		conns int
	}{{s.Owners(), ownerConns}, {s.Auditors(), auditorConns}} {
		for range x.conns {
			c, err := x.of.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := x.of.Workload(ended, "w"); err == nil {
			t.Error("there is a connection left: the test shows nothing")
		}
	}
	w, err := s.Workload(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(t.Context(), "w", w.Digest, Guest{Session: "s"}); err != nil {
		t.Error(err)
	}
}

// TestOwnersWaitForNoGuest is the other way round, and that what one does the
// other sees.
func TestOwnersWaitForNoGuest(t *testing.T) {
	s, _, _ := newStore(t)
	for range 6 {
		c, err := s.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := s.Owners().Register(t.Context(), registration("w", 1), nil, secret.New([]byte("k")), "x"); err != nil {
		t.Fatal(err)
	}
	if w, err := s.Owners().Workload(t.Context(), "w"); err != nil || w.Registration.WorkloadID != "w" {
		t.Error(w, err)
	}
	if page, err := s.Auditors().AuditPage(t.Context(), "", 0, 10); err != nil || len(page.Entries) != 1 {
		t.Error(page, err)
	}
	if err := s.Owners().Check(t.Context()); err != nil {
		t.Error(err)
	}
}
