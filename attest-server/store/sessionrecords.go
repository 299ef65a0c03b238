package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// sessionRecords are the outcomes of attestations, for `ccrun explain`.
type sessionRecords struct {
	*core
	kept int // of authentic Evidence, and again of the rest
}

// RecordSession keeps an attestation's outcome and forgets the oldest beyond
// the limit. Authentic Evidence and the rest have a limit each: forgeries cost
// their sender nothing, and must push out nothing but forgeries. For the same
// reason they are not audited; grants are, and denials of authentic Evidence.
func (s sessionRecords) RecordSession(ctx context.Context, r kbs.SessionRecord, authentic bool) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("recording session: %w", err)
	}
	class, machine := 0, kbs.Machine{}
	if authentic {
		class, machine = 1, machineOf(r)
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		var seq int
		err := tx.QueryRow(`INSERT INTO sessions(authentic, seq, number, workload, at, record, machine)
			VALUES(?1, (SELECT coalesce(max(seq), 0) + 1 FROM sessions WHERE authentic = ?1), ?2, ?3, ?4, ?5, ?6) RETURNING seq`,
			class, r.Session, r.WorkloadID, unixMilli(r.At), b, machine.ID).Scan(&seq)
		if err != nil {
			return fmt.Errorf("recording session: %w", err)
		}
		if _, err := tx.Exec("DELETE FROM sessions WHERE authentic = ? AND seq <= ?", class, seq-s.kept); err != nil {
			return err
		}
		if err := keepEvidence(tx, class, r); err != nil {
			return err
		}
		if err := saw(tx, machine, r); err != nil {
			return err
		}
		if r.Granted {
			return s.log.append(tx, "session/"+r.Session, "attest.grant", r.WorkloadID, "")
		}
		if r.Result.Confirmed() { // no denial, but a sign of a break-in
			return s.log.refuse(tx, asRefusal(r, "attest.refuse"))
		}
		if r.Result.Result == kbs.Undecided {
			return nil // no denial
		}
		if _, err := tx.Exec("UPDATE workloads SET denials = denials + 1 WHERE "+versionsOf("?1")+" AND (version = ?2 OR ?2 = 0 AND id = ?1)", r.WorkloadID, r.Version); err != nil {
			return err
		}
		if err := countDenial(tx, r); err != nil {
			return err
		}
		if !authentic {
			return nil
		}
		return s.log.refuse(tx, asRefusal(r, "attest.deny"))
	})
}

func asRefusal(r kbs.SessionRecord, action string) refusal {
	why := firstFailure(r.Result)
	return refusal{session: r.Session, action: action, object: r.WorkloadID, detail: why, workload: r.WorkloadID, why: why}
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
func (s sessionRecords) Session(ctx context.Context, number string) (kbs.SessionRecord, error) {
	r, err := scanRecord(s.db.QueryRowContext(ctx, "SELECT record, releases, refused FROM sessions WHERE number = ?", number))
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("session %s: %w", number, ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("reading session %s: %w", number, err)
	}
	return r, nil
}

// Evidence is what the denied guest of a session showed, as it came, or
// ErrNotFound.
func (s sessionRecords) Evidence(ctx context.Context, number string) (b []byte, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT evidence FROM evidence WHERE session = ?", number).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("evidence of session %s: %w", number, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading evidence of session %s: %w", number, err)
	}
	return b, nil
}

// noteVolume adds to a session's record what its guest was refused later. The
// record may be gone.
func noteVolume(tx *sql.Tx, number string, v kbs.VolumeRefusal) error {
	return noteSession(tx, number, func(r *kbs.SessionRecord) bool {
		if len(r.Volumes) >= kbs.MaxVolumesKept {
			return false
		}
		r.Volumes = append(r.Volumes, v)
		return true
	})
}

// noteGiven adds to a session's record what its guest gets.
func noteGiven(tx *sql.Tx, number string, g kbs.Given) error {
	return noteSession(tx, number, func(r *kbs.SessionRecord) bool {
		var has kbs.Given
		if r.Given != nil {
			has = *r.Given
		}
		had := has
		has.Secrets += g.Secrets
		has.Config = cmp.Or(g.Config, has.Config)
		for _, name := range g.Volumes {
			if !slices.Contains(has.Volumes, name) {
				has.Volumes = append(slices.Clone(has.Volumes), name)
			}
		}
		r.Given = &has
		return has.Secrets != had.Secrets || has.Config != had.Config || len(has.Volumes) != len(had.Volumes)
	})
}

// noteSession changes a session's record, if there is one still and change says so.
func noteSession(tx *sql.Tx, number string, change func(*kbs.SessionRecord) bool) error {
	r, err := scanRecord(tx.QueryRow("SELECT record, releases, refused FROM sessions WHERE number = ?", number))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading session %s: %w", number, err)
	}
	if !change(&r) {
		return nil
	}
	r.Releases, r.Refused = 0, "" // which have columns
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = tx.Exec("UPDATE sessions SET record = ? WHERE number = ?", b, number)
	return err
}

func scanRecord(r row) (record kbs.SessionRecord, err error) {
	var b []byte
	var releases int64
	var refused *string
	if err := r.Scan(&b, &releases, &refused); err != nil {
		return record, err
	}
	return recordOf(b, releases, refused)
}

func recordOf(b []byte, releases int64, refused *string) (record kbs.SessionRecord, err error) {
	if err := kbs.UnmarshalStrict(b, &record); err != nil {
		return record, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if record.Releases = releases; refused != nil {
		record.Refused = *refused
	}
	return record, nil
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
func (s sessionRecords) Sessions(ctx context.Context, q SessionQuery, limit int) ([]kbs.SessionRecord, error) {
	before := int64(1<<63 - 1)
	if !q.Before.IsZero() {
		before = unixMilli(q.Before)
	}
	all, err := list(ctx, s.db, scanRecord, `SELECT record, releases, refused FROM sessions
		WHERE (at, number) < (?1, ?2) AND (?3 = '' OR workload = ?3)
		AND (?4 = '' OR `+owned("workload", "?4")+`)
		ORDER BY at DESC, number DESC LIMIT ?5`,
		before, q.BeforeNumber, q.WorkloadID, q.Tenant, limit)
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	return all, nil
}
