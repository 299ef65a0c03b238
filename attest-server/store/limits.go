package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// ErrLimit says that a workload's registration allows no further release.
var ErrLimit = errors.New("release limit reached")

const day = 24 * time.Hour

// countRelease checks a registration's limits and counts this release, in the
// release's own transaction: of two guests that ask at once for the last one
// allowed, one gets it. A session counts when it first gets the DiskKey, so
// that an answer lost on the way costs nothing. A refusal is ErrLimit.
func countRelease(tx *sql.Tx, row, session string, limits *kbs.ReleaseLimits, now time.Time) error {
	var again bool
	var c counters
	err := tx.QueryRow(`SELECT released, day, released_on_day, EXISTS(SELECT 1 FROM sessions WHERE number = ?2 AND workload = ?3 AND releases > 0)
		FROM workloads WHERE id = ?1`, row, session, kbs.WorkloadOf(row)).Scan(&c.total, &c.day, &c.onDay, &again)
	if err != nil {
		return err
	}
	if err := c.allow(limits, now, again); err != nil {
		return err
	}
	if !again {
		c.total, c.onDay = c.total+1, c.onDay+1
	}
	_, err = tx.Exec(`UPDATE workloads SET releases = releases + 1, last_release = ?, released = ?, day = ?, released_on_day = ? WHERE id = ?`,
		unixMilli(now), c.total, c.day, c.onDay, row)
	if err != nil {
		return err
	}
	_, err = tx.Exec("UPDATE sessions SET releases = releases + 1 WHERE number = ?", session)
	return err
}

// counters are sessions that got the key: ever, and on the UTC day seen last.
type counters struct{ total, day, onDay int64 }

// allow brings c to now's day and says whether one more is allowed. A clock
// that was set back begins no new day.
func (c *counters) allow(limits *kbs.ReleaseLimits, now time.Time, again bool) error {
	today := dayOf(now)
	if today > c.day {
		c.day, c.onDay = today, 0
	}
	if limits == nil {
		return nil
	}
	switch {
	case limits.NotAfter != nil && !now.Before(*limits.NotAfter):
		return fmt.Errorf("registration expired %s: %w", limits.NotAfter.UTC().Format(time.RFC3339), ErrLimit)
	case again:
		return nil
	case limits.Total > 0 && c.total >= limits.Total:
		return fmt.Errorf("released to %d sessions of %d in all: %w", c.total, limits.Total, ErrLimit)
	case limits.PerDay > 0 && c.onDay >= limits.PerDay && c.day > today:
		return hint.With(fmt.Errorf("released to %d sessions of %d on %s (UTC), which is yet to come: the clock was ahead: %w", c.onDay, limits.PerDay, dateOf(c.day), ErrLimit),
			"if the clock is right now, run `attest-server limits reset`")
	case limits.PerDay > 0 && c.onDay >= limits.PerDay:
		return fmt.Errorf("released to %d sessions of %d today (UTC): %w", c.onDay, limits.PerDay, ErrLimit)
	}
	return nil
}

// dayOf is the UTC day of a time, counted from 1970.
func dayOf(t time.Time) int64 { return t.Unix() / int64(day/time.Second) }

func dateOf(n int64) string {
	return time.Unix(n*int64(day/time.Second), 0).UTC().Format(time.DateOnly)
}

// limits is how days that the clock ran ahead to are forgotten.
type limits struct{ *core }

// ResetLimits lets today's releases begin for every workload that was last
// released on a day yet to come, and says which those were. A clock that was
// ahead once would otherwise keep them from their share of each day until then.
// Of all other workloads it changes nothing.
func (s limits) ResetLimits(ctx context.Context, actor string) (ids []string, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		today := dayOf(s.clock())
		ahead, err := daysAhead(tx, today)
		if err != nil {
			return err
		}
		ids = nil
		for _, w := range ahead {
			if _, err := tx.Exec("UPDATE workloads SET day = ?, released_on_day = 0 WHERE id = ?", today, w.id); err != nil {
				return err
			}
			if err := s.log.append(tx, actor, "limits.reset", kbs.WorkloadOf(w.id), asideColon(w.id)+"was "+dateOf(w.day)); err != nil {
				return err
			}
			ids = append(ids, w.id)
		}
		return nil
	})
	return ids, err
}

// aheadDay is a workload and the day of its last release.
type aheadDay struct {
	id  string
	day int64
}

func daysAhead(tx *sql.Tx, today int64) (all []aheadDay, err error) {
	rows, err := tx.Query("SELECT id, day FROM workloads WHERE day > ? ORDER BY id", today)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var a aheadDay
		if err := rows.Scan(&a.id, &a.day); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}
