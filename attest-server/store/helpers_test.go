package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// postgresURL is a database for tests, in which each makes a schema of its
// own: with it the whole suite runs on PostgreSQL instead of SQLite.
const postgresURL = "CCRUN_TEST_POSTGRES"

func onPostgres() bool { return os.Getenv(postgresURL) != "" }

// place is where a test's store is to be: a file's path or a database's URL.
// With an "x" behind it, it is where there is none.
func place(t testing.TB) string {
	t.Helper()
	if !onPostgres() {
		return filepath.Join(t.TempDir(), "store with space?.db")
	}
	u, err := url.Parse(os.Getenv(postgresURL))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	schema := "test_" + hex.EncodeToString(b)
	run := func(query string) {
		t.Helper()
		db, err := sql.Open("pgx", u.String())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	run("CREATE SCHEMA " + schema)
	t.Cleanup(func() { run("DROP SCHEMA " + schema + " CASCADE") })
	q := u.Query()
	q.Set("search_path", schema)
	own := *u
	own.RawQuery = q.Encode() // search_path comes last of what tests give
	return own.String()
}

func create(ctx context.Context, at string, o Options) (*DB, error) {
	if onPostgres() {
		return CreatePostgres(ctx, Postgres{DSN: at}, o)
	}
	return Create(ctx, at, o)
}

func reopen(ctx context.Context, at string, o Options) (*DB, error) {
	if onPostgres() {
		return OpenPostgres(ctx, Postgres{DSN: at}, o)
	}
	return Open(ctx, at, o)
}

// words puts a query of somebody who edits the database into its words.
func words(query string) string {
	if !onPostgres() {
		return query
	}
	return strings.NewReplacer(
		"CAST(replace(CAST(", "convert_to(replace(convert_from(", "CAST('", "convert_to('",
		" AS TEXT)", ", 'UTF8')", " AS BLOB)", ", 'UTF8')", " x'", ` '\x`,
		"audit_update;", "audit_update ON audit;", "audit_delete;", "audit_delete ON audit;",
		"PRAGMA user_version =", "UPDATE store_version SET version =",
	).Replace(query)
}

func edit(t *testing.T, s *DB, query string) {
	t.Helper()
	if err := s.write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(words(query)); return err }); err != nil {
		t.Fatal(err)
	}
}

// readAll is everything that is stored: the file and its write-ahead log, or
// each column of each row.
func readAll(t *testing.T, at string) string {
	t.Helper()
	if onPostgres() {
		return readTables(t, at)
	}
	var all []byte
	for _, p := range []string{at, at + "-wal"} {
		b, err := os.ReadFile(p)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return string(all)
}

func readTables(t *testing.T, at string) string {
	t.Helper()
	db, err := sql.Open("pgx", at)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var all strings.Builder
	for _, table := range column(t, db, "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()") {
		for _, c := range column(t, db, "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '"+table+"'") {
			for _, v := range column(t, db, "SELECT "+c+" FROM "+table) {
				all.WriteString(v)
			}
		}
	}
	if all.Len() == 0 {
		t.Fatal("nothing is stored: the test shows nothing")
	}
	return all.String()
}

func column(t *testing.T, db *sql.DB, query string) (values []string) {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		values = append(values, string(b))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}
