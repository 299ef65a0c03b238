package store

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

// anyone is an admin.
var anyone = Caller{Actor: "x", Any: true}

func create(ctx context.Context, at string, o Options) (*DB, error) {
	if databasetest.OnPostgres() {
		return CreatePostgres(ctx, database.Postgres{DSN: at}, o)
	}
	return Create(ctx, at, o)
}

func reopen(ctx context.Context, at string, o Options) (*DB, error) {
	if databasetest.OnPostgres() {
		return OpenPostgres(ctx, database.Postgres{DSN: at}, o)
	}
	return Open(ctx, at, o)
}

func edit(t *testing.T, s *DB, query string) {
	t.Helper()
	if err := s.write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(databasetest.Words(query)); return err }); err != nil {
		t.Fatal(err)
	}
}

// readAll is everything that is stored: the file and its write-ahead log, or
// each column of each row.
func readAll(t *testing.T, at string) string {
	t.Helper()
	if databasetest.OnPostgres() {
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
