package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// denialsKept is how long denials are counted by the hour.
const denialsKept = 90 * 24 * time.Hour

// DenialCount is how often a rule failed within the hour that begins at Hour.
type DenialCount struct {
	Hour  time.Time
	Rule  string
	Count int64
}

// countDenial adds a denial to its hour, under each rule that failed. The
// rule "appraisal" only sums up others. Expressions
// count as one: neither guests nor publishers can make the table grow.
func countDenial(tx *sql.Tx, r kbs.SessionRecord) error {
	hour := r.At.Unix() / 3600
	for _, rule := range r.Result.Rules {
		if rule.Pass || rule.Rule == "appraisal" {
			continue
		}
		_, err := tx.Exec(`INSERT INTO denials(hour, rule, count) VALUES(?, ?, 1)
			ON CONFLICT(hour, rule) DO UPDATE SET count = denials.count + 1`, hour, rule.Kind())
		if err != nil {
			return fmt.Errorf("counting denial: %w", err)
		}
	}
	_, err := tx.Exec("DELETE FROM denials WHERE hour < ?", hour-int64(denialsKept/time.Hour))
	return err
}

// Denials is how often each rule failed, by the hour, since a time at most 90
// days ago, oldest first.
func (s *DB) Denials(ctx context.Context, since time.Time) ([]DenialCount, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT hour, rule, count FROM denials WHERE hour >= ? ORDER BY hour, rule", since.Unix()/3600)
	if err != nil {
		return nil, fmt.Errorf("reading denials: %w", err)
	}
	defer rows.Close()
	var all []DenialCount
	for rows.Next() {
		var d DenialCount
		var hour int64
		if err := rows.Scan(&hour, &d.Rule, &d.Count); err != nil {
			return nil, fmt.Errorf("reading denials: %w", err)
		}
		d.Hour = time.Unix(hour*3600, 0).UTC()
		all = append(all, d)
	}
	return all, rows.Err()
}

// SessionQuery selects session records. The zero value of a member selects
// all.
type SessionQuery struct {
	Tenant     string // as kbs.Owns has it
	WorkloadID string
	// Before and BeforeNumber are time and number of the last record of the
	// page before.
	Before       time.Time
	BeforeNumber string
}

// Sessions is at most limit session records, latest first.
func (s *DB) Sessions(ctx context.Context, q SessionQuery, limit int) ([]kbs.SessionRecord, error) {
	before := int64(1<<63 - 1)
	if !q.Before.IsZero() {
		before = unixMilli(q.Before)
	}
	rows, err := s.db.QueryContext(ctx, `SELECT record, releases FROM sessions
		WHERE (at, number) < (?1, ?2) AND (?3 = '' OR workload = ?3)
		AND (?4 = '' OR workload = ?4 OR (workload >= ?4 || '.' AND workload < ?4 || '/'))
		ORDER BY at DESC, number DESC LIMIT ?5`,
		before, q.BeforeNumber, q.WorkloadID, q.Tenant, limit)
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	defer rows.Close()
	var all []kbs.SessionRecord
	for rows.Next() {
		var r kbs.SessionRecord
		var b []byte
		var releases int64
		if err := rows.Scan(&b, &releases); err != nil {
			return nil, fmt.Errorf("listing sessions: %w", err)
		}
		if err := kbs.UnmarshalStrict(b, &r); err != nil {
			return nil, fmt.Errorf("reading a session record: %w: %w", ErrTampered, err)
		}
		r.Releases = releases
		all = append(all, r)
	}
	return all, rows.Err()
}
