package database

import (
	"context"
	"database/sql"
	"time"
)

// engine is what differs between the databases. All else is one set of queries
// that both understand.
type engine interface {
	// words puts a step of the schema into this database's words.
	words(s Schema, step string) string
	// exclude keeps others from migrating until tx ends.
	exclude(tx *sql.Tx) error
	version(tx *sql.Tx) (int, error)
	setVersion(tx *sql.Tx, v int) error
	// begin is the first statement of every write: no other server writes
	// until tx ends, and what tx reads is what the last one left.
	begin(tx *sql.Tx, s Schema) error
	// share ends a SELECT whose rows nobody may change until tx ends.
	share() string
	// now is an expression for the database's clock, in Unix milliseconds.
	now() string
	// whole checks the database's own structures, where that is for us to do.
	whole(ctx context.Context, db *sql.DB) error
	// save writes a consistent copy to a new file, or is errors.ErrUnsupported.
	save(ctx context.Context, db *sql.DB, path string) error
	// warnings are settings of the database under which what is acknowledged
	// can be lost, and whatever else its operator should hear.
	warnings(ctx context.Context, db *sql.DB, now time.Time) ([]string, error)
	// stored is a query for the names of a table's columns but the computed ones.
	stored(table string) string
	// unguard is the statements that switch a trigger of a table off and on again,
	// without keeping readers waiting; create is the one that made it.
	unguard(table, trigger, create string) (off, on string)
	// served says that several servers may have the database open at once.
	served() bool
}
