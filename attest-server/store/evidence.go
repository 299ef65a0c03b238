package store

import (
	"database/sql"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// How much Evidence of denied guests is kept: of authentic Evidence and of the
// rest each, so that forgeries push out nothing but forgeries; the latest of each
// workload, and of all, so that one workload's guests do not push out all others'.
const (
	evidencePerWorkload = 16
	evidenceInAll       = 1024
	// MaxKeptEvidence bounds one, in bytes; what is longer is not kept.
	MaxKeptEvidence = 16 << 10
)

// keepEvidence keeps what a denied guest showed.
func keepEvidence(tx *sql.Tx, class int, r kbs.SessionRecord) error {
	if r.Granted || len(r.Evidence) == 0 || len(r.Evidence) > MaxKeptEvidence {
		return nil
	}
	var seq int64
	err := tx.QueryRow(`INSERT INTO evidence(authentic, seq, session, workload, evidence)
		VALUES(?1, (SELECT coalesce(max(seq), 0) + 1 FROM evidence WHERE authentic = ?1), ?2, ?3, ?4) RETURNING seq`,
		class, r.Session, r.WorkloadID, r.Evidence).Scan(&seq)
	if err != nil {
		return fmt.Errorf("keeping evidence: %w", err)
	}
	if _, err := tx.Exec("DELETE FROM evidence WHERE authentic = ? AND seq <= ?", class, seq-evidenceInAll); err != nil {
		return err
	}
	_, err = tx.Exec(`DELETE FROM evidence WHERE authentic = ?1 AND workload = ?2 AND seq <=
		(SELECT seq FROM evidence WHERE authentic = ?1 AND workload = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3)`, class, r.WorkloadID, evidencePerWorkload)
	return err
}
