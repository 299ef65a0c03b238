package store

import (
	"context"
	"errors"
	"fmt"
)

// Snapshot writes a consistent copy of the store to path, which must not
// exist, while the store is in use. It is a store in a file, whatever the
// original is in. Its secrets are sealed like the store's.
func (s *DB) Snapshot(ctx context.Context, path string) error {
	if err := s.engine.snapshot(ctx, s, path); err != nil {
		return fmt.Errorf("copying store: %w", err)
	}
	return nil
}

// Verify reads the whole store: the database's pages, every registration and
// the audit chain. It needs no MasterKey.
func (s *DB) Verify(ctx context.Context) error {
	if err := s.engine.whole(ctx, s.db); err != nil {
		return fmt.Errorf("checking store: %w", err)
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
