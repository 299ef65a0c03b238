// Package database is the two databases that a store can be in, SQLite and
// PostgreSQL, behind one set of queries, and the one writer of each. It does
// not know what is kept in them.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// What callers branch on.
var (
	// ErrNone says that the database holds no store.
	ErrNone = errors.New("not found")
	// ErrUnavailable means that the database does not answer now.
	ErrUnavailable = errors.New("the database does not answer")
)

const maxConns = 6

// DB is an open database, whose schema is this program's. Queries have SQLite's
// placeholders: ? or ?3.
type DB struct {
	*sql.DB
	engine  engine
	schema  Schema
	connect func() (*sql.DB, error)
	others  []*sql.DB // its Writer's connection, and those reserved
}

// open opens what connect does.
func open(ctx context.Context, connect func() (*sql.DB, error), e engine, s Schema) (*DB, error) {
	db, err := pool(connect, maxConns)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, db, e, s); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &DB{DB: db, engine: e, schema: s, connect: connect}, nil
}

// pool is at most conns connections, which stay open.
func pool(connect func() (*sql.DB, error), conns int) (*sql.DB, error) {
	db, err := connect()
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Reserve is the same database over conns connections of its own: whoever uses
// d's waits for none of its users. Close of d closes them.
func (d *DB) Reserve(conns int) (*DB, error) {
	db, err := pool(d.connect, conns)
	if err != nil {
		return nil, err
	}
	d.others = append(d.others, db)
	return &DB{DB: db, engine: d.engine, schema: d.schema, connect: d.connect}, nil
}

// Close closes all connections, those reserved too.
func (d *DB) Close() error {
	var errs []error
	for _, other := range d.others {
		errs = append(errs, other.Close())
	}
	return errors.Join(append(errs, d.DB.Close())...)
}

// migrate brings the database up to this binary's schema, all or nothing, and
// refuses one that a newer binary wrote. Of several servers that start at
// once, one migrates.
func migrate(ctx context.Context, db *sql.DB, e engine, s Schema) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := e.exclude(tx); err != nil {
		return err
	}
	have, err := e.version(tx)
	if err != nil {
		return err
	}
	if err := s.check(have); err != nil {
		return err
	}
	if have == len(s.Steps) {
		return nil
	}
	for _, step := range s.Steps[have:] {
		if _, err := tx.ExecContext(ctx, e.words(s, step)); err != nil {
			return fmt.Errorf("migrating schema: %w", err)
		}
	}
	if err := e.setVersion(tx, len(s.Steps)); err != nil {
		return err
	}
	return tx.Commit()
}

// CheckSchema refuses a database that a newer program has changed since it was
// opened.
func (d *DB) CheckSchema(tx *sql.Tx) error {
	have, err := d.engine.version(tx)
	if err != nil {
		return err
	}
	return d.schema.check(have)
}

// Shared says whether several servers may have the database open at once.
func (d *DB) Shared() bool { return d.engine.served() }

// ShareRows ends a SELECT whose rows nobody may change until its transaction
// ends.
func (d *DB) ShareRows() string { return d.engine.share() }

// NowMilli is an expression for the database's clock, in Unix milliseconds.
func (d *DB) NowMilli() string { return d.engine.now() }

// Unguarded runs do while a trigger of a table is off. create is the statement that
// made it. Nobody else ever sees the table without.
func (d *DB) Unguarded(tx *sql.Tx, table, trigger, create string, do func() error) error {
	off, on := d.engine.unguard(table, trigger, create)
	if _, err := tx.Exec(off); err != nil {
		return fmt.Errorf("switching off trigger %s: %w", trigger, err)
	}
	if err := do(); err != nil {
		return err
	}
	if _, err := tx.Exec(on); err != nil {
		return fmt.Errorf("switching on trigger %s: %w", trigger, err)
	}
	return nil
}

// Warnings are what the database's operator should change.
func (d *DB) Warnings(ctx context.Context, now time.Time) ([]string, error) {
	return d.engine.warnings(ctx, d.DB, now)
}

// Whole checks the database's own structures, if that is not for tools of its
// own.
func (d *DB) Whole(ctx context.Context) error { return d.engine.whole(ctx, d.DB) }

// Save writes a consistent copy to a new file at path. errors.ErrUnsupported:
// this database can only be copied, by CopyTo.
func (d *DB) Save(ctx context.Context, path string) error { return d.engine.save(ctx, d.DB, path) }
