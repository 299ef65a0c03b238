package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// CreatePostgres makes a new store in a PostgreSQL database that holds none,
// and opens it.
func CreatePostgres(ctx context.Context, p Postgres, o Options) (*DB, error) {
	if o.MasterKey.Len() == 0 {
		return nil, fmt.Errorf("creating store: %w", ErrLocked)
	}
	s, err := openPostgres(ctx, p, o, postgresEngine{create: true}, (*DB).writeCheck)
	if err != nil {
		return nil, fmt.Errorf("creating store: %w", holdsOne(err))
	}
	return s, nil
}

// holdsOne says what it means that a row of a new store is there already.
func holdsOne(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "23505" {
		return errors.New("the database holds one already: take another database, or another search_path")
	}
	return err
}

// OpenPostgres opens the store in a PostgreSQL database, migrates it if it is
// older and checks the master key against it. Several servers may have it open
// at once.
func OpenPostgres(ctx context.Context, p Postgres, o Options) (*DB, error) {
	s, err := openPostgres(ctx, p, o, postgresEngine{}, (*DB).verifyCheck)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	return s, nil
}

func openPostgres(ctx context.Context, p Postgres, o Options, e postgresEngine, check func(*DB, context.Context) error) (*DB, error) {
	db, err := p.open()
	if err != nil {
		return nil, err
	}
	return open(ctx, db, e, o, check)
}

func (p Postgres) open() (*sql.DB, error) {
	cfg, err := p.config()
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(pgConnector{stdlib.GetConnector(*cfg, stdlib.OptionAfterConnect(prepareSession))}), nil
}

// prepareSession sees that a commit is on disk when it is answered, whatever
// the role's default, and that a server that died without a word does not keep
// the others from writing.
func prepareSession(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', '10s', false),
		set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
			THEN 'on' ELSE current_setting('synchronous_commit') END, false)`)
	return err
}

// postgresEngine is the engine of a store that several servers share.
type postgresEngine struct{ create bool }

// migrationLock is the advisory lock of whoever migrates.
const migrationLock = 0x6363_7275_6e31

// migration translates the types. Text is compared by its bytes, as SQLite
// does: tenants' names are ranges of it.
func (postgresEngine) migration(step string) string {
	return strings.NewReplacer(
		appendOnly, appendOnlyPostgres,
		" BLOB", " BYTEA", " INTEGER", " BIGINT", " TEXT", ` TEXT COLLATE "C"`,
		") STRICT, WITHOUT ROWID;", ");", ") STRICT;", ");",
	).Replace(step)
}

const appendOnlyPostgres = `
	CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN RAISE EXCEPTION ''audit is append-only''; END';
	CREATE TRIGGER audit_update BEFORE UPDATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
	CREATE TRIGGER audit_delete BEFORE DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();`

func (postgresEngine) exclude(tx *sql.Tx) error {
	_, err := tx.Exec("SELECT pg_advisory_xact_lock(?)", int64(migrationLock))
	return err
}

func (e postgresEngine) version(tx *sql.Tx) (int, error) {
	var encoding string
	var exists bool
	if err := tx.QueryRow("SELECT current_setting('server_encoding'), to_regclass('store_version') IS NOT NULL").Scan(&encoding, &exists); err != nil {
		return 0, err
	}
	switch {
	case encoding != "UTF8":
		return 0, fmt.Errorf("the database's encoding is %s, expected UTF8: make it with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0", encoding)
	case !exists && !e.create:
		return 0, fmt.Errorf("the database holds no store: make one with `attest-server init --config FILE`: %w", ErrNotFound)
	case !exists:
		_, err := tx.Exec(`CREATE TABLE store_version(one BIGINT PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL);
			INSERT INTO store_version(one, version) VALUES(1, 0)`)
		return 0, err
	}
	var v int
	return v, tx.QueryRow("SELECT version FROM store_version").Scan(&v)
}

func (postgresEngine) setVersion(tx *sql.Tx, v int) error {
	_, err := tx.Exec("UPDATE store_version SET version = ?", v)
	return err
}

// begin locks the one row of store_version. Whoever has it is alone in
// appending to the audit chain and counting releases; a server that meanwhile
// became too old for the schema writes no more.
func (postgresEngine) begin(tx *sql.Tx) error {
	var v int
	if err := tx.QueryRow("SELECT version FROM store_version WHERE one = 1 FOR UPDATE").Scan(&v); err != nil {
		return err
	}
	return checkVersion(v)
}

func (postgresEngine) share() string { return " FOR SHARE" }
func (postgresEngine) now() string {
	return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
}
func (postgresEngine) served() bool { return true }

func (postgresEngine) snapshot(ctx context.Context, s *DB, path string) error {
	return s.copyToFile(ctx, path)
}

func (e postgresEngine) warnings(ctx context.Context, db *sql.DB, now time.Time) (all []string, err error) {
	var fsync, pages string
	var theirs int64
	err = db.QueryRowContext(ctx, "SELECT current_setting('fsync'), current_setting('full_page_writes'), "+e.now()).Scan(&fsync, &pages, &theirs)
	if err != nil {
		return nil, fmt.Errorf("reading the database's settings: %w", err)
	}
	if fsync != "on" || pages != "on" {
		all = append(all, fmt.Sprintf("fsync is %s, full_page_writes is %s: if its machine crashes, registrations are lost and nonces are good again; set both to on", fsync, pages))
	}
	if d := now.Sub(fromMilli(theirs)).Abs(); d > 5*time.Second {
		all = append(all, fmt.Sprintf("its clock and this machine's are %s apart: servers that share sessions need clocks within 10 s of one another", d.Round(time.Second)))
	}
	return all, nil
}

// whole is for the database's own tools: pg_amcheck, data checksums.
func (postgresEngine) whole(context.Context, *sql.DB) error { return nil }
