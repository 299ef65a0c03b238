package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// CreatePostgres opens a PostgreSQL database that holds no store yet.
func CreatePostgres(ctx context.Context, p Postgres, s Schema) (*DB, error) {
	return openPostgres(ctx, p, postgresEngine{create: true}, s)
}

// OpenPostgres opens a PostgreSQL database, which may be ErrNone, and migrates
// it if it is older. Several servers may have it open at once.
func OpenPostgres(ctx context.Context, p Postgres, s Schema) (*DB, error) {
	return openPostgres(ctx, p, postgresEngine{}, s)
}

func openPostgres(ctx context.Context, p Postgres, e postgresEngine, s Schema) (*DB, error) {
	cfg, err := p.config()
	if err != nil {
		return nil, err
	}
	connect := func() (*sql.DB, error) {
		return sql.OpenDB(pgConnector{stdlib.GetConnector(*cfg, stdlib.OptionAfterConnect(prepareSession))}), nil
	}
	return open(ctx, connect, e, s)
}

// HoldsOne says of a refused insert into a new store that the database holds a
// store already. Other errors it returns as they are.
func HoldsOne(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "23505" {
		return errors.New("the database holds one already: take another database, or another search_path")
	}
	return err
}

// prepareSession has PostgreSQL answer a commit only when it is on disk,
// whatever the role's default, and end the transaction of a server that died,
// which would keep the others from writing.
func prepareSession(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', '10s', false),
		set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
			THEN 'on' ELSE current_setting('synchronous_commit') END, false)`)
	return err
}

// postgresEngine is the engine of a database that several servers share.
type postgresEngine struct{ create bool }

// migrationLock is the advisory lock of whoever migrates.
const migrationLock = 0x6363_7275_6e31

func (postgresEngine) words(s Schema, step string) string { return s.ForPostgres(step) }

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
		return 0, fmt.Errorf("the database holds no store: make one with `attest-server init --config FILE`: %w", ErrNone)
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
func (postgresEngine) begin(tx *sql.Tx, s Schema) error {
	var v int
	if err := tx.QueryRow("SELECT version FROM store_version WHERE one = 1 FOR UPDATE").Scan(&v); err != nil {
		return err
	}
	return s.check(v)
}

func (postgresEngine) share() string { return " FOR SHARE" }
func (postgresEngine) now() string {
	return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
}
func (postgresEngine) served() bool { return true }

func (postgresEngine) stored(table string) string {
	return "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND is_generated = 'NEVER' AND table_name = '" + table + "'"
}

func (postgresEngine) unguard(table, trigger, _ string) (off, on string) {
	return "ALTER TABLE " + table + " DISABLE TRIGGER " + trigger, "ALTER TABLE " + table + " ENABLE TRIGGER " + trigger
}

func (postgresEngine) save(context.Context, *sql.DB, string) error { return errors.ErrUnsupported }

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
	if d := now.Sub(time.UnixMilli(theirs)).Abs(); d > 5*time.Second {
		all = append(all, fmt.Sprintf("its clock and this machine's are %s apart: servers that share sessions need clocks within 10 s of one another", d.Round(time.Second)))
	}
	return all, nil
}

// whole is for the database's own tools: pg_amcheck, data checksums.
func (postgresEngine) whole(context.Context, *sql.DB) error { return nil }
