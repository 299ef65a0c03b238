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

// denials counts what was refused.
type denials struct{ *core }

// DenialCount is how often a rule failed within the hour that begins at Hour.
type DenialCount struct {
	Hour  time.Time
	Rule  string
	Count int64
}

// countDenial adds a denial to its hour, under each rule that failed. The rule
// "appraisal" only sums up others. Expressions count as one: neither guests nor
// publishers can make the table grow.
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
func (s denials) Denials(ctx context.Context, since time.Time) ([]DenialCount, error) {
	all, err := list(ctx, s.db, func(r row) (d DenialCount, err error) {
		var hour int64
		err = r.Scan(&hour, &d.Rule, &d.Count)
		d.Hour = time.Unix(hour*3600, 0).UTC()
		return d, err
	}, "SELECT hour, rule, count FROM denials WHERE hour >= ? ORDER BY hour, rule", since.Unix()/3600)
	if err != nil {
		return nil, fmt.Errorf("reading denials: %w", err)
	}
	return all, nil
}
