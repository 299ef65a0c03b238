package database

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// outage marks errors that are the fault of SQLite's file or disk as
// ErrUnavailable, and adds what to do about them.
func outage(err error) error {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	var next string
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		next = "free space on the store's file system; what was acknowledged is kept"
	case sqlite3.SQLITE_READONLY:
		next = "make the store's directory writable"
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		next = "look for disk errors, space and permissions of the store's directory"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		next = "the store's file is damaged: stop the server, set the file aside and restore the last backup"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		next = "another process holds the store's lock"
	default:
		return err
	}
	return fmt.Errorf("%w: %w: %s", ErrUnavailable, err, next)
}
