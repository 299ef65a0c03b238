// Package databasetest gives tests databases of either kind.
package databasetest

import (
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
)

// PostgresURL names the environment variable of a database for tests, in which each makes a schema of its
// own: with it the whole suite runs on PostgreSQL instead of SQLite.
const PostgresURL = "CCRUN_TEST_POSTGRES"

// OnPostgres says whether tests run on PostgreSQL.
func OnPostgres() bool { return os.Getenv(PostgresURL) != "" }

// Place is where a test's store is to be: a file's path or a database's URL.
// With an "x" behind it, it is where there is none.
func Place(t testing.TB) string {
	t.Helper()
	if !OnPostgres() {
		return filepath.Join(t.TempDir(), "store with space?.db")
	}
	u, err := url.Parse(os.Getenv(PostgresURL))
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

// Words puts a query of somebody who edits the database into its words.
func Words(query string) string {
	if !OnPostgres() {
		return query
	}
	return strings.NewReplacer(
		"CAST(replace(CAST(", "convert_to(replace(convert_from(", "CAST('", "convert_to('",
		" AS TEXT)", ", 'UTF8')", " AS BLOB)", ", 'UTF8')", " x'", ` '\x`,
		"audit_update;", "audit_update ON audit;", "audit_delete;", "audit_delete ON audit;",
		"PRAGMA user_version =", "UPDATE store_version SET version =",
	).Replace(query)
}
