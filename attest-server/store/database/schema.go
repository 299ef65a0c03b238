package database

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNewerSchema says that a newer program has changed the schema.
var ErrNewerSchema = errors.New("store is newer than this attest-server")

// Schema is how the tables come to be.
type Schema struct {
	// Steps bring the database from version i to i+1. Released ones are never
	// edited, only followed. They are written for SQLite.
	Steps []string
	// Postgres are pairs of what Steps say and what PostgreSQL says instead,
	// beside the types.
	Postgres []string
}

// ForPostgres puts a step into PostgreSQL's words. Text is compared by its
// bytes, as SQLite does: tenants' names are ranges of it.
func (s Schema) ForPostgres(step string) string {
	return strings.NewReplacer(append(slices.Clone(s.Postgres),
		" BLOB", " BYTEA", " INTEGER", " BIGINT", " TEXT", ` TEXT COLLATE "C"`,
		") STRICT, WITHOUT ROWID;", ");", ") STRICT;", ");")...).Replace(step)
}

func (s Schema) check(have int) error {
	if have <= len(s.Steps) {
		return nil
	}
	return fmt.Errorf("schema version %d, this attest-server knows up to %d: use the newer one, or restore a backup made with this one: %w",
		have, len(s.Steps), ErrNewerSchema)
}
