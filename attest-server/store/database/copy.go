package database

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// CopyTo puts what the tables hold at one moment into to, all or nothing, and
// ends with last. The tables are in an order that foreign keys allow.
func (d *DB) CopyTo(ctx context.Context, to *DB, tables []string, last func(*sql.Tx) error) error {
	from, err := d.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
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
	if err := last(tx); err != nil {
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
