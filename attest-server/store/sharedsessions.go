package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/secret"
)

// sharedSessions are what several servers behind one address must share of a
// session: the secret that seals its bearer, a mark that its nonce was used,
// and what it was granted. The grant is sealed by the server: whoever can write
// the database could otherwise put a key of his own in place of the guest's.
type sharedSessions struct{ *core }

const sessionSecretSize = 32

// ErrUsed says that a session's nonce was used before, or is so old that it may
// have been, or that all its releases are used.
var ErrUsed = errors.New("used already")

// SessionSecret is what all servers on this store derive the keys of sessions
// from. It is made on first use and kept sealed.
func (s sharedSessions) SessionSecret(ctx context.Context) (secret.Bytes, error) {
	return s.values.readOrMake(ctx, sessionSecretName, func() (secret.Bytes, error) {
		b := make([]byte, sessionSecretSize)
		_, err := io.ReadFull(s.rand, b)
		return secret.New(b), err
	})
}

// RenewalSecret is what seals the tickets of running guests. It is in every copy
// of the store, for they outlive servers.
func (s sharedSessions) RenewalSecret(ctx context.Context) (secret.Bytes, error) {
	return s.values.readOrMake(ctx, renewalSecretName, func() (secret.Bytes, error) {
		b := make([]byte, sessionSecretSize)
		_, err := io.ReadFull(s.rand, b)
		return secret.New(b), err
	})
}

// UseSession marks a session's nonce as used, until a time after which nobody
// will accept it. Of any number of callers, on any servers, one succeeds; the
// others get ErrUsed. So does a caller whose nonce is so old that its mark may
// have been forgotten, whatever his clock says.
func (s sharedSessions) UseSession(ctx context.Context, id string, until time.Time) error {
	err := changed(s.db.ExecContext(ctx, `WITH purge AS (SELECT until FROM session_purge WHERE one = 1`+s.db.ShareRows()+`)
		INSERT INTO session_marks(id, expires) SELECT CAST(?1 AS TEXT), CAST(?2 AS BIGINT) FROM purge WHERE purge.until < CAST(?2 AS BIGINT)
		ON CONFLICT DO NOTHING`, id, unixMilli(until)))
	if errors.Is(err, ErrNotFound) {
		err = ErrUsed
	}
	if err != nil {
		return fmt.Errorf("marking session %s: %w", id, err)
	}
	return nil
}

// GrantSession keeps what a used session was granted, sealed by the caller.
func (s sharedSessions) GrantSession(ctx context.Context, id string, sealed []byte, until time.Time) error {
	err := changed(s.db.ExecContext(ctx, "UPDATE session_marks SET granted = ?, expires = ? WHERE id = ? AND granted IS NULL", sealed, unixMilli(until), id))
	if err != nil {
		return fmt.Errorf("granting session %s: %w", id, err)
	}
	return nil
}

// SessionGrant is what GrantSession kept: nil for a session that was used and
// not granted, ErrNotFound for one that was not used.
func (s sharedSessions) SessionGrant(ctx context.Context, id string) (sealed []byte, err error) {
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
// and returns how many are left of so many in all. ErrUsed: none was left.
func (s sharedSessions) SpendSession(ctx context.Context, id string, resource bool, of int) (left int, err error) {
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
// database's own time if that is earlier: one server whose clock is ahead must
// not end everybody's sessions. It counts the rest, up to a limit.
func (s sharedSessions) PurgeSessions(ctx context.Context, expired time.Time, limit int) (granted, marks int, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("forgetting sessions: %w", err)
	}
	defer tx.Rollback()
	var now int64
	if err := tx.QueryRow("SELECT " + s.db.NowMilli()).Scan(&now); err != nil {
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
