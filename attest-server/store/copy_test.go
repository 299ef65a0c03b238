package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

// TestCopyHoldsEveryTable: a table that a migration adds must be copied, or
// named here with the reason why not.
func TestCopyHoldsEveryTable(t *testing.T) {
	s, err := Create(t.Context(), filepath.Join(t.TempDir(), "db"), options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	left := []string{"session_marks", "session_purge"} // good for a minute
	have := column(t, s.db.DB, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
	for _, name := range have {
		if slices.Contains(tables, name) == slices.Contains(left, name) {
			t.Errorf("table %s is neither copied nor left out, or both", name)
		}
	}
	if len(have) != len(tables)+len(left) {
		t.Errorf("store has %d tables, copied or left out are %d", len(have), len(tables)+len(left))
	}
}

// TestCopyThereAndBack moves a store from PostgreSQL into a file and from
// there into another database: what was sealed opens, the chain holds.
func TestCopyThereAndBack(t *testing.T) {
	if !databasetest.OnPostgres() {
		t.Skip("TestCopyThereAndBack needs " + databasetest.PostgresURL)
	}
	s, _, o := newStore(t)
	for i := range 5 {
		mustRegister(t, s, registration(fmt.Sprint("w", i), byte(i+1)), fmt.Sprint("key-", i))
	}
	if _, err := s.Revoke(t.Context(), "w4", "x"); err != nil {
		t.Fatal(err)
	}
	old, err := s.SessionSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy")
	if err := s.Snapshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	file, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	at := databasetest.Place(t)
	if err := file.CopyToPostgres(t.Context(), database.Postgres{DSN: at}); err != nil {
		t.Fatal(err)
	}
	if err := file.CopyToPostgres(t.Context(), database.Postgres{DSN: at}); err == nil || !strings.Contains(err.Error(), "holds one already") {
		t.Errorf("copied over a store: %v", err)
	}
	again, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, c := range []*DB{file, again} {
		if err := c.Verify(t.Context()); err != nil {
			t.Error(err)
		}
		w, err := c.Workload(t.Context(), "w1")
		if err != nil {
			t.Fatal(err)
		}
		if k, err := c.Release(t.Context(), "w1", w.Digest, Guest{Session: "n"}); err != nil || string(k.Reveal()) != "key-1" {
			t.Errorf("Release = %v", err)
		}
		if w, err := c.Workload(t.Context(), "w4"); err != nil || w.RevokedAt == nil {
			t.Errorf("revoked workload: %+v, %v", w, err)
		}
		if fresh, err := c.SessionSecret(t.Context()); err != nil || fresh.Equal(old) {
			t.Errorf("the copy takes bearers of the original, %v", err)
		}
	}
	if a, err := s.Workload(t.Context(), "w0"); err != nil || a.Digest == (kbs.Digest{}) {
		t.Errorf("the original: %v", err)
	}
}
