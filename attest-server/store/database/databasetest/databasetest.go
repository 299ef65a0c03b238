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
	"sync"
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
	schema, own := name(), server(t)
	run(t, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { run(t, "DROP SCHEMA "+schema+" CASCADE") })
	q := own.Query()
	q.Set("search_path", schema)
	own.RawQuery = q.Encode() // search_path comes last of what tests give
	return own.String()
}

// Template makes a database on PostgreSQL that fill fills: one for all tests,
// for to Copy it costs a tenth of making its tables.
func Template(fill func(at string) error) (template string, err error) {
	u, err := url.Parse(os.Getenv(PostgresURL))
	if err != nil {
		return "", err
	}
	template = name()
	if err := execute("CREATE DATABASE " + template); err != nil {
		return "", err
	}
	u.Path = "/" + template
	return template, fill(u.String())
}

// Copy is a Place that holds what template does, which nobody has open.
func Copy(t testing.TB, template string) string {
	t.Helper()
	copied, own := name(), server(t)
	run(t, "CREATE DATABASE "+copied+" TEMPLATE "+template+" STRATEGY FILE_COPY")
	t.Cleanup(func() { run(t, "DROP DATABASE "+copied+" WITH (FORCE)") })
	own.Path = "/" + copied
	return own.String()
}

func name() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return "test_" + hex.EncodeToString(b)
}

func server(t testing.TB) *url.URL {
	t.Helper()
	u, err := url.Parse(os.Getenv(PostgresURL))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// administrator is one connection for all tests: each costs PostgreSQL a process.
var administrator = sync.OnceValues(func() (*sql.DB, error) {
	db, err := sql.Open("pgx", os.Getenv(PostgresURL))
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
})

func execute(query string) error {
	db, err := administrator()
	if err != nil {
		return err
	}
	_, err = db.Exec(query)
	return err
}

func run(t testing.TB, query string) {
	t.Helper()
	if err := execute(query); err != nil {
		t.Fatal(err)
	}
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
