package store

import (
	"context"
	"database/sql"
	"time"
)

// row is an *sql.Row or the current one of *sql.Rows.
type row interface{ Scan(dest ...any) error }

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// rowQuerier is a database or a transaction.
type rowQuerier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// list is what scan makes of each row of a query, never nil.
func list[T any](ctx context.Context, from querier, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := from.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// page is the first limit of all; next is the name of the last of them, if
// there are more.
func page[T any](all []T, limit int, name func(T) string) (first []T, next string) {
	if len(all) <= limit {
		return all, ""
	}
	return all[:limit], name(all[limit-1])
}

func unixMilli(t time.Time) int64 { return t.UTC().UnixMilli() }

func fromMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func fromNullMilli(ms *int64) *time.Time {
	if ms == nil {
		return nil
	}
	t := fromMilli(*ms)
	return &t
}

// changed is ErrNotFound if a statement changed no row.
func changed(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrNotFound
}
