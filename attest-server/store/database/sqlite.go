package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"
)

// CreateSQLite makes a new database in one file at path, which must not exist,
// and opens it.
func CreateSQLite(ctx context.Context, path string, s Schema) (*DB, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return OpenSQLite(ctx, path, s)
}

// OpenSQLite opens the database in the file at path and migrates it if it is
// older.
func OpenSQLite(ctx context.Context, path string, s Schema) (*DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return open(ctx, func() (*sql.DB, error) { return openSQLite(sqliteDSN(path)) }, sqliteEngine{}, s)
}

func sqliteDSN(path string) string {
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(4000)", "foreign_keys(1)", "secure_delete(1)", "trusted_schema(0)"},
		"_txlock": {"immediate"},
	}.Encode()}).String()
}

// sqliteEngine is the engine of a database in one file. Its transactions lock
// the file from their beginning (_txlock).
type sqliteEngine struct{}

func (sqliteEngine) words(_ Schema, step string) string { return step }
func (sqliteEngine) exclude(*sql.Tx) error              { return nil }
func (sqliteEngine) begin(*sql.Tx, Schema) error        { return nil }
func (sqliteEngine) share() string                      { return "" }
func (sqliteEngine) now() string                        { return "CAST(unixepoch('subsec') * 1000 AS INTEGER)" }
func (sqliteEngine) served() bool                       { return false }

func (sqliteEngine) stored(table string) string {
	return "SELECT name FROM pragma_table_xinfo('" + table + "') WHERE hidden = 0"
}

func (sqliteEngine) unguard(_, trigger, create string) (off, on string) {
	return "DROP TRIGGER " + trigger, create
}

func (sqliteEngine) version(tx *sql.Tx) (v int, err error) {
	return v, tx.QueryRow("PRAGMA user_version").Scan(&v)
}

func (sqliteEngine) setVersion(tx *sql.Tx, v int) error {
	_, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", v))
	return err
}

func (sqliteEngine) save(ctx context.Context, db *sql.DB, path string) error {
	_, err := db.ExecContext(ctx, "VACUUM INTO ?", path)
	return err
}

func (sqliteEngine) warnings(context.Context, *sql.DB, time.Time) ([]string, error) { return nil, nil }

func (sqliteEngine) whole(ctx context.Context, db *sql.DB) error {
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return errors.New(result)
	}
	return nil
}
