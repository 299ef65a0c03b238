package store

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// noHash is before the first entry.
var noHash = strings.Repeat("00", sha256.Size)

// The commands token, tenant, policy and limits work without the MasterKey, which a
// unit's credential may be the only place of. Their entries are unsigned until
// somebody with the MasterKey writes. Whoever else writes the database can make
// the like of them and no others: of a server's entries none is unsigned.
var keylessActions = []string{"token.create", "token.revoke", "tenant.set", "tenant.remove", "tenant.policy.set", "tenant.policy.remove", "limits.reset"}

const (
	keylessActor = "local"
	// maxUnsigned bounds what is read of them at once.
	maxUnsigned = 10_000
)

// WrittenKeyless says whether e can have been written without the MasterKey.
func WrittenKeyless(e AuditEntry) bool {
	return e.Actor == keylessActor && slices.Contains(keylessActions, e.Action)
}

// entries are a range of the audit log.
type entries struct{ first, last int64 }

func (e entries) String() string { return fmt.Sprintf("%d-%d", e.first, e.last) }

// admit reads what follows the entry that head signs. ErrTampered if it does
// not follow, or holds what no command writes without the MasterKey.
func admit(tx *sql.Tx, head kbs.AuditHead) (unsigned entries, err error) {
	sum, err := hex.DecodeString(head.Hash)
	if err != nil {
		return unsigned, err
	}
	rows, err := tx.Query("SELECT "+auditColumns+" FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", head.Sequence, maxUnsigned+1)
	if err != nil {
		return unsigned, fmt.Errorf("reading audit: %w", err)
	}
	defer rows.Close()
	chain := auditChain{seq: head.Sequence, hash: sum}
	for rows.Next() {
		e, err := chain.next(rows)
		switch {
		case err != nil:
			return unsigned, err
		case !WrittenKeyless(e):
			return unsigned, fmt.Errorf("audit entry %d (%s by %s) is signed by nobody, and a server would have: %w", e.Sequence, e.Action, e.Actor, ErrTampered)
		case e.Sequence-head.Sequence > maxUnsigned:
			return unsigned, fmt.Errorf("more than %d audit entries are signed by nobody: %w", maxUnsigned, ErrTampered)
		}
		unsigned = entries{head.Sequence + 1, e.Sequence}
	}
	return unsigned, rows.Err()
}
