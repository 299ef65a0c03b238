package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A VM gets its DiskKey until it has confirmed that its disk opened. After
// that, whoever can have reports made in it (a program that broke out of its
// container, say) has nothing to gain by one: its REPORT_ID is known here.

// Guest is who a DiskKey is released to.
type Guest struct {
	Session string // its public number
	// ReportID tells its VM from all others, from launch to end. Empty where the
	// TEE has nothing of the kind: a TD.
	ReportID []byte
}

// ErrConfirmed says that a guest has its disk open already.
var ErrConfirmed = errors.New("the guest has confirmed that its disk opened")

const (
	// maxConfirmations bounds what is kept of one workload: some 150 MiB.
	maxConfirmations = 1 << 20
	// longestGuest is how old a confirmation at least is when it makes room for
	// a new one: by then its VM has hardly lived on.
	longestGuest = 366 * day
)

// confirmations are the guests that have their disks open.
type confirmations struct {
	*core
	most int64 // of one workload
}

// Confirm notes that a guest of workload id has its disk open, and audits it.
// To confirm again changes nothing. Where a workload has more confirmations
// than are kept, and none is old enough to be forgotten, it is ErrLimit.
func (s confirmations) Confirm(ctx context.Context, id string, g Guest) error {
	if len(g.ReportID) > 0 && errors.Is(unconfirmed(ctx, s.db, g.ReportID), ErrConfirmed) {
		return nil // without a write: it may be asked as often as a session likes
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		err := changed(tx.Exec("UPDATE sessions SET confirmed = ? WHERE number = ? AND confirmed IS NULL", unixMilli(s.clock()), g.Session))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		fresh := err == nil
		if len(g.ReportID) > 0 {
			if fresh, err = s.insert(tx, id, g); err != nil {
				return err
			}
		}
		if !fresh {
			return nil
		}
		return s.log.append(tx, "session/"+g.Session, "key.confirm", id, "")
	})
	if err != nil {
		return fmt.Errorf("confirming the release to session %s: %w", g.Session, err)
	}
	return nil
}

// insert is false if the guest is there already.
func (s confirmations) insert(tx *sql.Tx, id string, g Guest) (bool, error) {
	var last, first, oldest int64
	err := tx.QueryRow(`INSERT INTO confirmations(workload, seq, report_id, at, session)
		VALUES(?1, (SELECT coalesce(max(seq), 0) + 1 FROM confirmations WHERE workload = ?1), ?2, ?3, ?4)
		ON CONFLICT(report_id) DO NOTHING RETURNING seq`, id, g.ReportID, unixMilli(s.clock()), g.Session).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = tx.QueryRow("SELECT seq, at FROM confirmations WHERE workload = ? ORDER BY seq LIMIT 1", id).Scan(&first, &oldest)
	if err != nil || last-first < s.most {
		return true, err
	}
	if age := s.clock().Sub(fromMilli(oldest)); age < longestGuest {
		return false, fmt.Errorf("%d guests have confirmed since %s: %w", s.most, fromMilli(oldest).Format(time.RFC3339), ErrLimit)
	}
	_, err = tx.Exec("DELETE FROM confirmations WHERE workload = ? AND seq = ?", id, first)
	return true, err
}

// unconfirmed is nil for a guest that has not confirmed, of whatever workload,
// and ErrConfirmed, with the time, for one that has.
func unconfirmed(ctx context.Context, from rowQuerier, reportID []byte) error {
	if len(reportID) == 0 {
		return nil
	}
	var at int64
	err := from.QueryRowContext(ctx, "SELECT at FROM confirmations WHERE report_id = ?", reportID).Scan(&at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("looking for a confirmation: %w", err)
	}
	return fmt.Errorf("%w at %s", ErrConfirmed, fromMilli(at).Format(time.RFC3339))
}

// Unconfirmed is nil for a guest that may still get its DiskKey as far as
// confirmations go, and ErrConfirmed for one that has its disk open.
func (s confirmations) Unconfirmed(ctx context.Context, reportID []byte) error {
	return unconfirmed(ctx, s.db, reportID)
}
