package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// What several servers behind one address must share of a session: the secret
// that seals its bearer, a mark that its nonce was used, and what it was
// granted. The grant is sealed by the server: whoever can write the database
// could otherwise put a key of his own in place of the guest's.

const migrationSessions = `
	CREATE TABLE session_marks(
		id TEXT PRIMARY KEY,
		expires INTEGER NOT NULL,
		granted BLOB,                   -- sealed; NULL: denied, or not yet judged
		releases INTEGER NOT NULL DEFAULT 0,
		resources INTEGER NOT NULL DEFAULT 0
	) STRICT, WITHOUT ROWID;
	CREATE INDEX session_marks_expires ON session_marks(expires);

	CREATE TABLE session_purge(
		one INTEGER PRIMARY KEY CHECK (one = 1),
		until INTEGER NOT NULL          -- marks that expired up to then may be gone
	) STRICT, WITHOUT ROWID;
	INSERT INTO session_purge(one, until) VALUES(1, 0);`

const (
	sessionSecretName = "session secret"
	sessionSecretSize = 32
)

// ErrUsed says that a session's nonce was used before, or is so old that
// nobody can tell, or that all its releases are.
var ErrUsed = errors.New("used already")

// SessionSecret is what all servers on this store derive the keys of sessions
// from. It is made on first use and kept sealed.
func (s *DB) SessionSecret(ctx context.Context) (secret.Bytes, error) {
	return s.sealedValue(ctx, sessionSecretName, func() (secret.Bytes, error) {
		b := make([]byte, sessionSecretSize)
		_, err := io.ReadFull(s.opts.Rand, b)
		return secret.New(b), err
	})
}

// sealedValue is the value of meta under name, which is made if there is none.
// Of several who make it at once all get the same.
func (s *DB) sealedValue(ctx context.Context, name string, fresh func() (secret.Bytes, error)) (secret.Bytes, error) {
	if s.sealer == nil {
		return secret.Bytes{}, fmt.Errorf("reading %s: %w", name, ErrLocked)
	}
	v, err := s.readSealed(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return v, err
	}
	made, err := fresh()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making %s: %w", name, err)
	}
	defer made.Wipe()
	err = s.write(ctx, func(tx *sql.Tx) error {
		sealed, err := s.sealer.Seal(made, masterkey.Location("meta", name))
		if err != nil {
			return err
		}
		_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO NOTHING", name, sealed)
		return err
	})
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("making %s: %w", name, err)
	}
	return s.readSealed(ctx, name)
}

func (s *DB) readSealed(ctx context.Context, name string) (secret.Bytes, error) {
	var sealed []byte
	err := s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", name).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return secret.Bytes{}, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading %s: %w", name, err)
	}
	v, err := s.sealer.Open(sealed, masterkey.Location("meta", name))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening %s: %w", name, ErrTampered)
	}
	return v, nil
}

// UseSession marks a session's nonce as used until a time after which nobody
// will accept it. Of any number of callers, on any servers, one succeeds; the
// others get ErrUsed. So do all whose mark may have been forgotten, whatever
// their clock says.
func (s *DB) UseSession(ctx context.Context, id string, until time.Time) error {
	res, err := s.db.ExecContext(ctx, `WITH purge AS (SELECT until FROM session_purge WHERE one = 1`+s.engine.share()+`)
		INSERT INTO session_marks(id, expires) SELECT CAST(?1 AS TEXT), CAST(?2 AS BIGINT) FROM purge WHERE purge.until < CAST(?2 AS BIGINT)
		ON CONFLICT DO NOTHING`, id, unixMilli(until))
	if err != nil {
		return fmt.Errorf("marking session %s: %w", id, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("session %s: %w", id, ErrUsed))
	}
	return nil
}

// GrantSession keeps what a used session was granted, sealed by the caller.
func (s *DB) GrantSession(ctx context.Context, id string, sealed []byte, until time.Time) error {
	res, err := s.db.ExecContext(ctx, "UPDATE session_marks SET granted = ?, expires = ? WHERE id = ? AND granted IS NULL", sealed, unixMilli(until), id)
	if err != nil {
		return fmt.Errorf("granting session %s: %w", id, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("session %s: %w", id, ErrNotFound))
	}
	return nil
}

// SessionGrant is what GrantSession kept: nil for a session that was used and
// not granted, ErrNotFound for one that was not used.
func (s *DB) SessionGrant(ctx context.Context, id string) (sealed []byte, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT granted FROM session_marks WHERE id = ?", id).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", id, err)
	}
	return sealed, nil
}

// SpendSession takes one of a granted session's releases, or of its resources,
// of which it may have so many in all, and returns how many are left. ErrUsed:
// none were.
func (s *DB) SpendSession(ctx context.Context, id string, resource bool, of int) (left int, err error) {
	query := "UPDATE session_marks SET releases = releases + 1 WHERE id = ? AND granted IS NOT NULL AND releases < ? RETURNING releases"
	if resource {
		query = "UPDATE session_marks SET resources = resources + 1 WHERE id = ? AND granted IS NOT NULL AND resources < ? RETURNING resources"
	}
	var spent int
	err = s.db.QueryRowContext(ctx, query, id, of).Scan(&spent)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrUsed
	}
	if err != nil {
		return 0, fmt.Errorf("session %s: %w", id, err)
	}
	return of - spent, nil
}

// PurgeSessions forgets marks that expired before a time, or before the
// database's own if that is earlier: one server whose clock is ahead must not
// end everybody's sessions. It counts the rest, up to a limit.
func (s *DB) PurgeSessions(ctx context.Context, expired time.Time, limit int) (granted, marks int, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("forgetting sessions: %w", err)
	}
	defer tx.Rollback()
	var now int64
	if err := tx.QueryRow("SELECT " + s.engine.now()).Scan(&now); err != nil {
		return 0, 0, fmt.Errorf("forgetting sessions: %w", err)
	}
	res, err := tx.Exec("UPDATE session_purge SET until = ?1 WHERE until < ?1", min(now, unixMilli(expired)))
	if err != nil {
		return 0, 0, fmt.Errorf("forgetting sessions: %w", err)
	}
	if n, err := res.RowsAffected(); err == nil && n > 0 {
		if _, err := tx.Exec("DELETE FROM session_marks WHERE expires <= (SELECT until FROM session_purge)"); err != nil {
			return 0, 0, fmt.Errorf("forgetting sessions: %w", err)
		}
	}
	err = tx.QueryRow("SELECT count(granted), count(*) FROM (SELECT granted FROM session_marks LIMIT ?) AS kept", limit).Scan(&granted, &marks)
	if err != nil {
		return 0, 0, fmt.Errorf("counting sessions: %w", err)
	}
	return granted, marks, tx.Commit()
}
