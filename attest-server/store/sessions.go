package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// migrationSessionRows gives session records row numbers. Without, SQLite reads
// whole records, of several KiB each, wherever it compares two of their keys.
const migrationSessionRows = `
	CREATE TABLE session_rows(
		authentic INTEGER NOT NULL,     -- was its Evidence?
		seq INTEGER NOT NULL,           -- counts within authentic
		number TEXT NOT NULL UNIQUE,
		workload TEXT NOT NULL,
		at INTEGER NOT NULL,
		releases INTEGER NOT NULL DEFAULT 0,
		record BLOB NOT NULL,
		PRIMARY KEY(authentic, seq)
	) STRICT;
	INSERT INTO session_rows(authentic, seq, number, workload, at, releases, record)
		SELECT authentic, seq, number, workload, at, releases, record FROM sessions;
	DROP TABLE sessions;
	ALTER TABLE session_rows RENAME TO sessions;
	CREATE INDEX sessions_at ON sessions(at, number);`

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
		err := tx.QueryRow(`INSERT INTO sessions(authentic, seq, number, workload, at, record)
			VALUES(?1, (SELECT coalesce(max(seq), 0) + 1 FROM sessions WHERE authentic = ?1), ?2, ?3, ?4, ?5) RETURNING seq`,
			class, r.Session, r.WorkloadID, unixMilli(r.At), b).Scan(&seq)
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
