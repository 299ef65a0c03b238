package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
	"github.com/ccrun/ccrun/secret"
)

// atVersion makes the database of an attest-server that knew v migrations.
func atVersion(t *testing.T, at string, v int) *database.DB {
	t.Helper()
	old := schema
	old.Steps = schema.Steps[:v]
	var db *database.DB
	var err error
	if databasetest.OnPostgres() {
		db, err = database.CreatePostgres(t.Context(), database.Postgres{DSN: at}, old)
	} else {
		db, err = database.CreateSQLite(t.Context(), at, old)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestMigrateAtOnce starts several servers on a store of every older version:
// one migrates, all open.
func TestMigrateAtOnce(t *testing.T) {
	step := 1
	if databasetest.OnPostgres() && os.Getenv("CCRUN_LONG") != "soak" {
		step = 4 // there each server's connections are processes
	}
	for v := len(migrations); v > 0; v -= step {
		at := databasetest.Place(t)
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
	if !databasetest.OnPostgres() {
		t.Skip("TestOvertakenServer needs " + databasetest.PostgresURL)
	}
	s, _, _ := newStore(t)
	edit(t, s, "PRAGMA user_version = 99")
	if _, err := s.Register(t.Context(), registration("a", 1), nil, diskKey("k"), "x"); !errors.Is(err, ErrNewerSchema) {
		t.Errorf("Register = %v", err)
	}
}

// TestPostgresWords: no migration has a type or clause left that PostgreSQL
// has not.
func TestPostgresWords(t *testing.T) {
	for i, m := range migrations {
		got := schema.ForPostgres(m)
		for _, word := range []string{"BLOB", " INTEGER", "STRICT", "ROWID", "RAISE(ABORT", "TEXT NOT", "TEXT;", "TEXT,", "TEXT PRIMARY"} {
			if strings.Contains(got, word) {
				t.Errorf("migration %d has %q:\n%s", i+1, word, got)
			}
		}
	}
}

// TestMigrateSessions: records of an older attest-server are still there, with
// their releases, and count against the limit.
func TestMigrateSessions(t *testing.T) {
	const old = 7 // the last without row numbers
	s := migrated(t, old, func(exec func(string, ...any)) {
		for i, number := range []string{"one", "two"} {
			b, err := json.Marshal(kbs.SessionRecord{Session: number, WorkloadID: "w", At: start})
			if err != nil {
				t.Fatal(err)
			}
			exec("INSERT INTO sessions(authentic, seq, number, workload, at, releases, record) VALUES(?,?,?,?,?,?,?)", 1, i+1, number, "w", unixMilli(start), i, b)
		}
	})
	s.kept = 2
	if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: "three", WorkloadID: "w", At: start}, true); err != nil {
		t.Fatal(err)
	}
	all, err := s.Sessions(t.Context(), SessionQuery{}, 10)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if r, err := s.Session(t.Context(), "two"); err != nil || r.Releases != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// migrated is a store that fill wrote to when it was of version old.
func migrated(t *testing.T, old int, fill func(exec func(string, ...any))) *DB {
	t.Helper()
	at := databasetest.Place(t)
	db := atVersion(t, at, old)
	fill(func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	})
	o := options(t)
	o.MasterKey = secret.Bytes{} // there is none yet
	s, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
