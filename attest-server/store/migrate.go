package store

import (
	"context"
	"database/sql"
	"fmt"
)

const appendOnly = `
	CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
	CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;`

// migrations brings a store from schema version i to i+1. Released entries
// are never edited, only followed. They are written for SQLite; an engine puts
// them into its own words.
var migrations = [...]string{
	`CREATE TABLE meta(
		name TEXT PRIMARY KEY,
		value BLOB NOT NULL
	) STRICT, WITHOUT ROWID;

	CREATE TABLE workloads(
		id TEXT PRIMARY KEY,
		tee TEXT NOT NULL,
		image TEXT NOT NULL,
		registration BLOB NOT NULL,     -- RFC 8785
		disk_key BLOB NOT NULL,         -- sealed
		registered_at INTEGER NOT NULL, -- all times: Unix milliseconds
		registered_by TEXT NOT NULL,
		revoked_at INTEGER,
		releases INTEGER NOT NULL DEFAULT 0,
		denials INTEGER NOT NULL DEFAULT 0,
		last_release INTEGER
	) STRICT, WITHOUT ROWID;

	CREATE TABLE measurements(
		launch_digest BLOB PRIMARY KEY,
		workload TEXT NOT NULL REFERENCES workloads(id) ON DELETE CASCADE
	) STRICT, WITHOUT ROWID;
	CREATE INDEX measurements_workload ON measurements(workload);

	CREATE TABLE tokens(
		id TEXT PRIMARY KEY,
		hash BLOB NOT NULL,
		role TEXT NOT NULL,
		name TEXT NOT NULL,
		created_at INTEGER NOT NULL,
		expires_at INTEGER,
		revoked_at INTEGER
	) STRICT, WITHOUT ROWID;

	CREATE TABLE sessions(
		authentic INTEGER NOT NULL,     -- was its Evidence?
		seq INTEGER NOT NULL,           -- counts within authentic
		number TEXT NOT NULL UNIQUE,
		workload TEXT NOT NULL,
		at INTEGER NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		record BLOB NOT NULL,
		PRIMARY KEY(authentic, seq)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE audit(
		seq INTEGER PRIMARY KEY,
		at INTEGER NOT NULL,
		actor TEXT NOT NULL,
		action TEXT NOT NULL,
		object TEXT NOT NULL,
		detail TEXT NOT NULL,
		prev BLOB NOT NULL,
		hash BLOB NOT NULL
	) STRICT;` + appendOnly,

	`CREATE TABLE denials(
		hour INTEGER NOT NULL,          -- Unix time / 3600
		rule TEXT NOT NULL,
		count INTEGER NOT NULL,
		PRIMARY KEY(hour, rule)
	) STRICT, WITHOUT ROWID;
	CREATE INDEX sessions_at ON sessions(at, number);`,

	migrationRotation,
	migrationTenants,
	migrationResources,
	migrationSessions,
	migrationPolicies,
	migrationSessionRows,
}

// migrate brings the store up to this binary's schema, all or nothing, and
// refuses one that a newer binary wrote. Of several servers that start at
// once, one migrates.
func migrate(ctx context.Context, db *sql.DB, e engine) error {
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
	if err := checkVersion(have); err != nil {
		return err
	}
	if have == len(migrations) {
		return nil
	}
	for _, m := range migrations[have:] {
		if _, err := tx.ExecContext(ctx, e.migration(m)); err != nil {
			return fmt.Errorf("migrating schema: %w", err)
		}
	}
	if err := e.setVersion(tx, len(migrations)); err != nil {
		return err
	}
	return tx.Commit()
}

func checkVersion(have int) error {
	if have <= len(migrations) {
		return nil
	}
	return fmt.Errorf("schema version %d, this attest-server knows up to %d: use the newer one, or restore a backup made with this one: %w",
		have, len(migrations), ErrNewerSchema)
}
