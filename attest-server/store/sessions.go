package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// RecordSession keeps an attestation's outcome for `ccrun explain` and forgets
// the oldest over the limit, which is one for authentic Evidence and one for
// the rest: forgeries cost their sender nothing and must push out only one
// another. For the same reason they are not audited; a grant is, and so is
// the denial of authentic Evidence.
func (s *DB) RecordSession(ctx context.Context, r kbs.SessionRecord, authentic bool) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("recording session: %w", err)
	}
	class := 0
	if authentic {
		class = 1
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		var seq int
		err := tx.QueryRow("SELECT coalesce(max(seq), 0) + 1 FROM sessions WHERE authentic = ?", class).Scan(&seq)
		if err != nil {
			return fmt.Errorf("recording session: %w", err)
		}
		_, err = tx.Exec("INSERT INTO sessions(authentic, seq, number, workload, at, record) VALUES(?,?,?,?,?,?)",
			class, seq, r.Session, r.WorkloadID, unixMilli(r.At), b)
		if err != nil {
			return fmt.Errorf("recording session: %w", err)
		}
		if _, err := tx.Exec("DELETE FROM sessions WHERE authentic = ? AND seq <= ?", class, seq-s.opts.SessionRecords); err != nil {
			return err
		}
		if r.Granted {
			return s.audit(tx, "session/"+r.Session, "attest.grant", r.WorkloadID, "")
		}
		if _, err := tx.Exec("UPDATE workloads SET denials = denials + 1 WHERE id = ?", r.WorkloadID); err != nil {
			return err
		}
		if err := countDenial(tx, r); err != nil {
			return err
		}
		if !authentic {
			return nil
		}
		return s.audit(tx, "session/"+r.Session, "attest.deny", r.WorkloadID, firstFailure(r.Result))
	})
}

func firstFailure(r kbs.AttestationResult) string {
	for _, rule := range r.Rules {
		if !rule.Pass {
			return "rule " + rule.Rule
		}
	}
	return ""
}

// Session is the record with that public number, or ErrNotFound.
func (s *DB) Session(ctx context.Context, number string) (kbs.SessionRecord, error) {
	var r kbs.SessionRecord
	var b []byte
	var releases int64
	err := s.db.QueryRowContext(ctx, "SELECT record, releases FROM sessions WHERE number = ?", number).Scan(&b, &releases)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("session %s: %w", number, ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("reading session %s: %w", number, err)
	}
	if err := kbs.UnmarshalStrict(b, &r); err != nil {
		return r, fmt.Errorf("reading session %s: %w", number, err)
	}
	r.Releases = releases
	return r, nil
}
