package store

import (
	"database/sql"
	"time"
)

// row is an *sql.Row or the current one of *sql.Rows.
type row interface{ Scan(dest ...any) error }

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
