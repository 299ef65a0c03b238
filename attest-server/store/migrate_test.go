package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
)

// atVersion makes the database of an attest-server that knew v migrations.
func atVersion(t *testing.T, at string, v int) {
	t.Helper()
	var db *sql.DB
	var e engine = sqliteEngine{}
	var err error
	if onPostgres() {
		e = postgresEngine{create: true}
		db, err = Postgres{DSN: at}.open()
	} else {
		db, err = openSQLite(sqliteDSN(at))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if have, err := e.version(tx); err != nil || have != 0 {
		t.Fatal(have, err)
	}
	for _, m := range migrations[:v] {
		if _, err := tx.Exec(e.migration(m)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(e.setVersion(tx, v), tx.Commit()); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateAtOnce starts several servers on a store of every older version:
// one migrates, all open.
func TestMigrateAtOnce(t *testing.T) {
	for v := 1; v <= len(migrations); v++ {
		at := place(t)
		atVersion(t, at, v)
		o := options(t)
		o.MasterKey.Wipe() // there is none yet
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s, err := reopen(context.Background(), at, Options{Rand: o.Rand, Clock: o.Clock})
				if err != nil {
					t.Errorf("from version %d: %v", v, err)
					return
				}
				defer s.Close()
				if err := s.UseSession(context.Background(), "s", start); err != nil && !errors.Is(err, ErrUsed) {
					t.Errorf("from version %d: %v", v, err)
				}
			})
		}
		wg.Wait()
	}
}

// TestOvertakenServer: a server that runs while another migrates beyond what it
// knows writes no more.
func TestOvertakenServer(t *testing.T) {
	if !onPostgres() {
		t.Skip("TestOvertakenServer needs " + postgresURL)
	}
	s, _, _ := newStore(t)
	edit(t, s, "PRAGMA user_version = 99")
	if _, err := s.Register(t.Context(), registration("a", 1), diskKey("k"), "x"); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("Register = %v", err)
	}
}

// TestPostgresWords: no migration has a type or clause left that PostgreSQL
// has not.
func TestPostgresWords(t *testing.T) {
	for i, m := range migrations {
		got := postgresEngine{}.migration(m)
		for _, word := range []string{"BLOB", " INTEGER", "STRICT", "ROWID", "RAISE(ABORT", "TEXT NOT", "TEXT;", "TEXT,", "TEXT PRIMARY"} {
			if strings.Contains(got, word) {
				t.Errorf("migration %d has %q:\n%s", i+1, word, got)
			}
		}
	}
}
