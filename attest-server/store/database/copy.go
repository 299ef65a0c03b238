package database

import (
	"context"
	"database/sql"
	"errors"
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
		if err := copyTable(ctx, from, tx, table, d.engine.stored(table)); err != nil {
			return fmt.Errorf("%s: %w", table, err)
		}
	}
	if err := last(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// copyTable copies the columns that the query stored names: what is computed
// from others cannot be written.
func copyTable(ctx context.Context, from, to *sql.Tx, table, stored string) error {
	columns, err := names(ctx, from, stored)
	if err != nil {
		return err
	}
	if len(columns) == 0 {
		return errors.New("table has no columns")
	}
	list := strings.Join(columns, ", ")
	rows, err := from.QueryContext(ctx, "SELECT "+list+" FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	insert := "INSERT INTO " + table + "(" + list + ") VALUES(?" + strings.Repeat(",?", len(columns)-1) + ")"
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

func names(ctx context.Context, tx *sql.Tx, query string) (all []string, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return all, rows.Err()
}
