package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Guests that are refused cost an audit entry each, and one machine with genuine
// Evidence can be refused as often as it likes. So of each kind of refusal only
// the first refusalsAlone of an hour have an entry each; the rest are counted,
// and told in one entry when the hour is over. What is granted always has its
// own.
const refusalsAlone = 100

// unregistered stands for all names that guests of no workload come under: they
// choose them. No tenant's name begins so.
const unregistered = "/unregistered"

// refusal is what a guest was refused.
type refusal struct {
	session, action, object, detail string
	workload, why                   string // whose guest, and for what: with action, the kind
}

// refuse audits a refusal, alone or with others of its kind.
func (l *auditLog) refuse(tx *sql.Tx, r refusal) error {
	var known bool
	if err := tx.QueryRow("SELECT EXISTS(SELECT 1 FROM workloads WHERE id = ?)", r.workload).Scan(&known); err != nil {
		return err
	}
	if !known {
		r.workload = unregistered
	}
	now := l.now()
	var count int64
	err := tx.QueryRow(`INSERT INTO refusals(hour, action, workload, why, count, began, ended) VALUES(?1,?2,?3,?4,1,?5,?5)
		ON CONFLICT(hour, action, workload, why) DO UPDATE SET count = refusals.count + 1, ended = excluded.ended,
		began = CASE WHEN refusals.count = ?6 THEN excluded.began ELSE refusals.began END RETURNING count`,
		hourOf(now), r.action, r.workload, r.why, unixMilli(now), refusalsAlone).Scan(&count)
	if err != nil {
		return fmt.Errorf("counting refusals: %w", err)
	}
	if count > refusalsAlone {
		return nil
	}
	return l.append(tx, "session/"+r.session, r.action, r.object, r.detail)
}

func hourOf(t time.Time) int64 { return t.Unix() / 3600 }

// tellRefusals audits, for every kind of refusal of hours that are over, how
// many had no entry. It runs at the beginning of every transaction, and looks
// once an hour. Without the MasterKey it leaves that to who has it.
func (l *auditLog) tellRefusals(tx *sql.Tx) error {
	hour := hourOf(l.now())
	if l.head.key == nil || hour == l.toldBefore {
		return nil
	}
	all, err := list(context.Background(), tx, scanRefusals, `SELECT action, workload, why, count, began, ended FROM refusals WHERE hour < ?1 ORDER BY hour, action, workload, why`, hour)
	if err != nil {
		return fmt.Errorf("reading refusals: %w", err)
	}
	if len(all) == 0 { // so that the look is repeated if this transaction fails
		l.toldBefore = hour
		return nil
	}
	for _, r := range all {
		if r.object == "" {
			continue
		}
		if err := l.append(tx, "server", r.action, r.object, r.detail); err != nil {
			return err
		}
	}
	_, err = tx.Exec("DELETE FROM refusals WHERE hour < ?", hour)
	return err
}

// scanRefusals makes the entry for a kind; no object, if each had its own.
func scanRefusals(row row) (r refusal, err error) {
	var count, began, ended int64
	if err := row.Scan(&r.action, &r.workload, &r.why, &count, &began, &ended); err != nil || count <= refusalsAlone {
		return r, err
	}
	r.action, r.object = r.action+".more", r.workload
	r.detail = fmt.Sprintf("%d more, first %s, last %s: %s", count-refusalsAlone,
		fromMilli(began).Format(time.RFC3339), fromMilli(ended).Format(time.RFC3339), r.why)
	return r, nil
}

// refusedKept is how long names refused to a session are remembered: longer
// than one can live.
const refusedKept = 3 * time.Hour

// firstRefusal says whether a session is refused that resource for the first
// time.
func firstRefusal(tx *sql.Tx, session string, id kbs.ResourceID, now time.Time) (bool, error) {
	if _, err := tx.Exec("DELETE FROM refused_resources WHERE at < ?", unixMilli(now.Add(-refusedKept))); err != nil {
		return false, err
	}
	err := changed(tx.Exec("INSERT INTO refused_resources(session, name, at) VALUES(?,?,?) ON CONFLICT DO NOTHING", session, id.String(), unixMilli(now)))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// whyRefused is the kind of a release's refusal.
func whyRefused(err error) string {
	switch {
	case errors.Is(err, ErrLimit):
		return "limit reached"
	case errors.Is(err, ErrNotApproved):
		return "not approved"
	case errors.Is(err, ErrConfirmed):
		return "confirmed"
	case errors.Is(err, ErrRevoked):
		return "machine denied"
	}
	return "not found"
}
