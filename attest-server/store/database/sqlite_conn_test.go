package database

import (
	"database/sql"
	"path/filepath"
	"testing"
)

func oneConn(t *testing.T) *sql.DB {
	t.Helper()
	db, err := openSQLite("file:" + filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	return db
}

func mustExec(t *testing.T, db interface {
	Exec(string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// TestKeptStatements runs kept statements in every state they can be in: while
// their rows are read, after a failure, and after the schema has changed.
func TestKeptStatements(t *testing.T) {
	db := oneConn(t)
	mustExec(t, db, "CREATE TABLE x(a INTEGER PRIMARY KEY, b BLOB) STRICT")
	for i := range 5 {
		mustExec(t, db, "INSERT INTO x(a, b) VALUES(?, ?)", i, []byte{byte(i)})
	}
	const list = "SELECT a FROM x ORDER BY a"
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	outer, err := tx.Query(list)
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	pairs := 0
	for outer.Next() {
		inner, err := tx.Query(list) // the kept one is being read
		if err != nil {
			t.Fatal(err)
		}
		for inner.Next() {
			pairs++
		}
		if err := inner.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := outer.Err(); err != nil || pairs != 25 {
		t.Errorf("%d pairs, %v, expected 25", pairs, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := db.Exec("INSERT INTO x(a, b) VALUES(?, ?)", 3, []byte{9}); err == nil {
			t.Error("a second row of one key")
		}
	}
	mustExec(t, db, "INSERT INTO x(a, b) VALUES(?, ?)", 5, nil) // no binding of before is left
	var b []byte
	if err := db.QueryRow("SELECT b FROM x WHERE a = ?", 5).Scan(&b); err != nil || b != nil {
		t.Errorf("b = %x, %v, expected NULL", b, err)
	}
	mustExec(t, db, "ALTER TABLE x ADD COLUMN c TEXT NOT NULL DEFAULT 'new'")
	var c string
	for range 2 {
		if err := db.QueryRow("SELECT c FROM x WHERE a = ?", 5).Scan(&c); err != nil || c != "new" {
			t.Errorf("c = %q, %v", c, err)
		}
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM x").Scan(&n); err != nil || n != 6 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func TestKeepable(t *testing.T) {
	for query, want := range map[string]bool{
		"SELECT 1": true, "SAVEPOINT one": true, "ROLLBACK TO one": true, "PRAGMA user_version": false,
		"CREATE TABLE x(a)": false, "SELECT 1; SELECT 2": false, "VACUUM INTO ?": false, "": false,
	} {
		if got := keepable(query); got != want {
			t.Errorf("keepable(%q) = %v", query, got)
		}
	}
}
