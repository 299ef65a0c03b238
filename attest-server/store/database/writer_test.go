package database

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

// newDatabase has one table, kept.
func newDatabase(t *testing.T) *DB {
	t.Helper()
	s := Schema{Steps: []string{"CREATE TABLE kept(name TEXT PRIMARY KEY) STRICT;"}}
	var db *DB
	var err error
	if at := databasetest.Place(t); databasetest.OnPostgres() {
		db, err = CreatePostgres(t.Context(), Postgres{DSN: at}, s)
	} else {
		db, err = CreateSQLite(t.Context(), at, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestRefusedWriteLeavesItsNeighbours commits a batch of which one fails.
func TestRefusedWriteLeavesItsNeighbours(t *testing.T) {
	db := newDatabase(t)
	committed := 0
	w := NewWriter(db, func(*sql.Tx) error { return nil }, func(*sql.Tx) (func(), error) { return func() { committed++ }, nil })
	defer w.Close()
	refused := errors.New("refused")
	results := make([]chan error, 3)
	var batch []write
	for i := range results {
		results[i] = make(chan error, 1)
		batch = append(batch, write{result: results[i], do: func(tx *sql.Tx) error {
			if _, err := tx.Exec("INSERT INTO kept(name) VALUES(?)", fmt.Sprint(i)); err != nil {
				return err
			}
			if i == 1 {
				return refused
			}
			return nil
		}})
	}
	w.commit(batch)
	for i, r := range results {
		if err := <-r; (err != nil) != (i == 1) {
			t.Errorf("write %d: %v", i, err)
		}
		var n int
		if err := db.QueryRow("SELECT count(*) FROM kept WHERE name = ?", fmt.Sprint(i)).Scan(&n); err != nil || (n == 1) != (i != 1) {
			t.Errorf("row %d: %d, %v", i, n, err)
		}
	}
	if committed != 1 {
		t.Errorf("committed %d times, expected once", committed)
	}
}

// TestLastRefuses: what the end of a transaction refuses undoes all of it.
func TestLastRefuses(t *testing.T) {
	db := newDatabase(t)
	refused := errors.New("refused")
	w := NewWriter(db, func(*sql.Tx) error { return nil }, func(*sql.Tx) (func(), error) { return nil, refused })
	defer w.Close()
	err := w.Write(t.Context(), Guests, func(tx *sql.Tx) error { _, err := tx.Exec("INSERT INTO kept(name) VALUES('a')"); return err })
	if !errors.Is(err, refused) {
		t.Errorf("Write = %v", err)
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM kept").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// TestGuestsWriteAmongOwners: of what has queued up, owners get a part of the
// next commit, and guests the rest of it.
func TestGuestsWriteAmongOwners(t *testing.T) {
	guests, owners := make(chan write, 100), make(chan write, 100)
	result := make(chan error)
	for range 100 {
		guests <- write{result: result}
		owners <- write{}
	}
	var theirs int
	batch := fill(make([]write, 1), guests, owners)
	for _, one := range batch[1:] {
		if one.result == nil {
			theirs++
		}
	}
	if len(batch) != maxBatch || theirs != maxOwners {
		t.Errorf("a batch of %d has %d of owners", len(batch), theirs)
	}
}
