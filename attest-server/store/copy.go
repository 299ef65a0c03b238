package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/store/database"
)

// tables are what a copy holds, in an order that foreign keys allow. Sessions
// under way are left out, and so is the secret that makes their bearers: on the
// copy, a nonce used after it was made would be good again.
var tables = []string{"meta", "tenants", "workloads", "identities", "boots", "configs", "agents", "tokens", "sessions", "evidence", "confirmations", "audit", "audit_tree", "denials", "refusals", "refused_resources", "resources", "approvals", "machines", "machine_grants", "volumes"}

// Snapshot writes a consistent copy of the store to path, which must not
// exist, while the store is in use. It is a store in a file, whatever the
// original is in. Its secrets are sealed like the store's.
func (s *DB) Snapshot(ctx context.Context, path string) error {
	err := s.db.Save(ctx, path)
	if errors.Is(err, errors.ErrUnsupported) {
		var to *database.DB
		if to, err = database.CreateSQLite(ctx, path, schema); err == nil {
			err = s.copyTo(ctx, to)
		}
	}
	if err != nil {
		return fmt.Errorf("copying store: %w", err)
	}
	return nil
}

// CopyToPostgres puts all that the store holds, sealed as it is, into a
// database that holds no store.
func (s *DB) CopyToPostgres(ctx context.Context, p database.Postgres) error {
	to, err := database.CreatePostgres(ctx, p, schema)
	if err == nil {
		err = s.copyTo(ctx, to)
	}
	if err != nil {
		return fmt.Errorf("copying store: %w", database.HoldsOne(err))
	}
	return nil
}

// copyTo closes to.
func (s *DB) copyTo(ctx context.Context, to *database.DB) error {
	err := s.db.CopyTo(ctx, to, tables, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM meta WHERE name = ?", sessionSecretName)
		return err
	})
	return errors.Join(err, to.Close())
}
