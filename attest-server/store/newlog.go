package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// A witness never takes back what it has seen. If the store it belongs to is lost
// and an older copy is all that there is, the log that witnesses know has ended.
// The operator begins another one, under another name, with the entries that
// there are: witnesses keep the old one's end as evidence.

// NewLog has the audit log begin anew for witnesses, with all its entries and one
// more, and returns its new name. Servers that run take that name at their next
// write.
func (s *DB) NewLog(ctx context.Context, reason string) (origin string, err error) {
	if s.sealer == nil {
		return "", fmt.Errorf("beginning the audit log anew: %w", ErrLocked)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		before := s.master.log
		if before.key == nil {
			return fmt.Errorf("a log that nobody has named yet: open the store once more: %w", ErrChanged)
		}
		if err := s.log.append(tx, keylessActor, "audit.rollback", before.origin(), reason); err != nil {
			return err
		}
		next := before
		next.generation++
		check, err := s.master.sealCheck(next)
		if err != nil {
			return err
		}
		if _, err = tx.Exec("UPDATE meta SET value = ? WHERE name = ?", check, checkName); err != nil {
			return err
		}
		if _, err = tx.Exec("DELETE FROM meta WHERE name = ?", witnessedName); err != nil {
			return err
		}
		// The checkpoint in the store must be of the name that the check value has.
		t := s.log.head.tree
		if t.signer, err = checkpoint.LogSigner(next.origin(), s.log.head.key); err != nil {
			return err
		}
		if _, err = t.keep(tx); err != nil {
			return err
		}
		s.log.head.tree = t // should the batch sign another one
		origin = next.origin()
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("beginning the audit log anew: %w", err)
	}
	return origin, nil
}
