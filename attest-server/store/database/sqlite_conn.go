package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Connections to SQLite keep the statements that they have run, by their text.
// Parsing a statement costs SQLite more than running one of ours does, and
// database/sql keeps statements only for callers that pass them around.

// maxStatements bounds what one connection keeps: we have fewer.
const maxStatements = 256

// openSQLite is sql.Open("sqlite", dsn) with connections that keep statements.
func openSQLite(dsn string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c}), nil
}

type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, outage(err)
	}
	in, ok := raw.(sqliteConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connection of the SQLite driver is a %T, which lacks methods", raw), raw.Close())
	}
	return &conn{sqliteConn: in, kept: map[string]*statement{}}, nil
}

// sqliteConn is what database/sql uses of the driver's connection.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// conn is used by one goroutine at a time, as database/sql promises.
type conn struct {
	sqliteConn
	kept map[string]*statement
}

type statement struct {
	driver.Stmt
	exec  driver.StmtExecContext
	query driver.StmtQueryContext
	open  bool // its rows are being read: it cannot run again
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, outage(err)
	}
	var r driver.Result
	if s == nil {
		r, err = c.sqliteConn.ExecContext(ctx, query, args)
	} else {
		r, err = s.exec.ExecContext(context.WithoutCancel(ctx), args)
	}
	return r, outage(err)
}

// QueryContext implements driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, outage(err)
	}
	var r driver.Rows
	if s == nil {
		s = new(statement)
		r, err = c.sqliteConn.QueryContext(ctx, query, args)
	} else {
		r, err = s.query.QueryContext(context.WithoutCancel(ctx), args)
	}
	if err != nil {
		return nil, outage(err)
	}
	s.open = true
	return &rows{Rows: r, of: s}, nil
}

// BeginTx implements driver.ConnBeginTx.
func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	t, err := c.sqliteConn.BeginTx(ctx, o)
	if err != nil {
		return nil, outage(err)
	}
	return tx{t}, nil
}

type tx struct{ driver.Tx }

// Commit implements driver.Tx.
func (t tx) Commit() error { return outage(t.Tx.Commit()) }

// statement is query, prepared and kept, or nil if it must be run the ordinary
// way. Kept ones run without the caller's context: to be able to interrupt a
// statement, the driver would start a goroutine for each.
func (c *conn) statement(ctx context.Context, query string) (*statement, error) {
	if s := c.kept[query]; s != nil {
		if s.open {
			return nil, nil
		}
		return s, nil
	}
	if len(c.kept) >= maxStatements || !keepable(query) {
		return nil, nil
	}
	p, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s := &statement{Stmt: p}
	var execs, queries bool
	s.exec, execs = p.(driver.StmtExecContext)
	s.query, queries = p.(driver.StmtQueryContext)
	if !execs || !queries {
		return nil, p.Close()
	}
	c.kept[query] = s
	return s, nil
}

// keepable is false for scripts, of which the driver keeps nothing, and for
// what runs once.
func keepable(query string) bool {
	verb, _, _ := strings.Cut(query, " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "SAVEPOINT", "RELEASE", "ROLLBACK":
		return !strings.Contains(query, ";")
	}
	return false
}

// Close implements driver.Conn.
func (c *conn) Close() error {
	var errs []error
	for _, s := range c.kept {
		errs = append(errs, s.Close())
	}
	clear(c.kept)
	return errors.Join(append(errs, c.sqliteConn.Close())...)
}

// rows gives its statement back when it is closed.
type rows struct {
	driver.Rows
	of *statement
}

// Next implements driver.Rows.
func (r *rows) Next(dest []driver.Value) error { return outage(r.Rows.Next(dest)) }

// Close implements driver.Rows.
func (r *rows) Close() error {
	r.of.open = false
	return r.Rows.Close()
}

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
