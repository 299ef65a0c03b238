package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
)

// tables are what a copy holds, in an order that foreign keys allow. Sessions
// under way are not in it, nor the secret of their bearers: a nonce used after
// the copy was made must not be good again on it.
var tables = []string{"meta", "tenants", "workloads", "measurements", "tokens", "sessions", "audit", "denials", "resources", "approvals"}

// copyToFile writes what the store held at one moment to a new store in a file.
func (s *DB) copyToFile(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	to, err := openSQLite(sqliteDSN(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := migrate(ctx, to, sqliteEngine{}); err != nil {
		return err
	}
	return s.copyTo(ctx, to)
}

// CopyToPostgres puts all that the store holds, sealed as it is, into a
// database that holds no store.
func (s *DB) CopyToPostgres(ctx context.Context, p Postgres) error {
	to, err := p.open()
	if err != nil {
		return fmt.Errorf("copying store: %w", err)
	}
	err = migrate(ctx, to, postgresEngine{create: true})
	if err == nil {
		err = s.copyTo(ctx, to)
	}
	if err = errors.Join(holdsOne(err), to.Close()); err != nil {
		return fmt.Errorf("copying store: %w", err)
	}
	return nil
}

// copyTo is all or nothing.
func (s *DB) copyTo(ctx context.Context, to *sql.DB) error {
	from, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer from.Rollback()
	tx, err := to.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, table := range tables {
		if err := copyTable(ctx, from, tx, table); err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM meta WHERE name = ?", sessionSecretName); err != nil {
		return err
	}
	return tx.Commit()
}

func copyTable(ctx context.Context, from, to *sql.Tx, table string) error {
	rows, err := from.QueryContext(ctx, "SELECT * FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	insert := "INSERT INTO " + table + "(" + strings.Join(columns, ", ") + ") VALUES(?" + strings.Repeat(",?", len(columns)-1) + ")"
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if _, err := to.ExecContext(ctx, insert, values...); err != nil {
			return err
		}
	}
	return rows.Err()
}
