package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// guestReports are what attested guests say of why they go no further.
type guestReports struct{ *core }

// ReportGuest keeps what the guest of a session says, once, and audits it.
func (s guestReports) ReportGuest(ctx context.Context, id, session, refused string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		err := changed(tx.Exec("UPDATE sessions SET refused = ? WHERE number = ? AND refused IS NULL", refused, session))
		if errors.Is(err, ErrNotFound) {
			return nil // said before, or forgotten
		}
		if err != nil {
			return err
		}
		return s.log.refuse(tx, refusal{session: session, action: "guest.refuse", object: id, workload: id, why: "guest refused"})
	})
	if err != nil {
		return fmt.Errorf("keeping the report of session %s: %w", session, err)
	}
	return nil
}
