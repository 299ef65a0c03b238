package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Verify reads the whole store: the database's pages, every registration and
// the audit chain. It needs no MasterKey.
func (s *DB) Verify(ctx context.Context) error {
	if err := s.db.Whole(ctx); err != nil {
		return fmt.Errorf("checking store: %w", err)
	}
	for after := ""; ; {
		page, err := s.Workloads(ctx, "", after, 100)
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
	base, err := s.Base(ctx)
	if errors.Is(err, ErrNotFound) {
		err = nil
	} else if err == nil && !bytes.Equal(base.PublicKey, h.PublicKey) {
		err = fmt.Errorf("audit base is signed by another key: %w", ErrTampered)
	}
	if err != nil {
		return err
	}
	err = s.Audit(ctx, 0, func(e AuditEntry) error {
		found = found || e.Sequence == h.Sequence && e.Hash == h.Hash
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("audit entry %d, signed last, is gone: %w", h.Sequence, ErrTampered)
	}
	return err
}
