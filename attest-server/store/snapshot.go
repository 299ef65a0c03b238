package store

import (
	"context"
	"errors"
	"fmt"
)

// Snapshot writes a consistent copy of the store to path, which must not
// exist, while the store is in use. The copy's secrets are sealed like the
// store's.
func (s *DB) Snapshot(ctx context.Context, path string) error {
	if _, err := s.db.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return fmt.Errorf("copying store: %w", err)
	}
	return nil
}

// Verify reads the whole store: the database's pages, every registration and
// the audit chain. It needs no MasterKey.
func (s *DB) Verify(ctx context.Context) error {
	var result string
	if err := s.db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&result); err != nil {
		return fmt.Errorf("checking store: %w", err)
	}
	if result != "ok" {
		return fmt.Errorf("checking store: %s", result)
	}
	for after := ""; ; {
		page, err := s.Workloads(ctx, after, 100)
		if err != nil {
			return err
		}
		for _, w := range page.Workloads {
			if _, err := s.Workload(ctx, w.WorkloadID); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			break
		}
	}
	h, err := s.AuditHead(ctx)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	found := err != nil
	err = s.Audit(ctx, 0, func(e AuditEntry) error {
		found = found || e.Sequence == h.Sequence && e.Hash == h.Hash
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("audit entry %d, signed last, is gone: %w", h.Sequence, ErrTampered)
	}
	return err
}
