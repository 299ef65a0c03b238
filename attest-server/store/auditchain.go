package store

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// AuditEntry is one link of the audit chain: who did what to what, when.
type AuditEntry = kbs.AuditEntry

// auditChain is how far the chain has been followed. hash is nil before the
// first entry of a walk that starts in the middle.
type auditChain struct {
	seq  int64
	hash []byte
}

// link is an entry with what chains it.
type link struct {
	AuditEntry
	at        int64
	prev, sum []byte
}

const auditColumns = "seq, at, actor, action, object, detail, prev, hash"

// scanLink reads a row of auditColumns.
func scanLink(r row) (l link, err error) {
	if err := r.Scan(&l.Sequence, &l.at, &l.Actor, &l.Action, &l.Object, &l.Detail, &l.prev, &l.sum); err != nil {
		return l, err
	}
	l.At, l.Hash = fromMilli(l.at), hex.EncodeToString(l.sum)
	return l, nil
}

// next is the entry of a row of auditColumns, if it follows.
func (c *auditChain) next(r row) (AuditEntry, error) {
	l, err := scanLink(r)
	if err != nil {
		return l.AuditEntry, err
	}
	return l.AuditEntry, c.follow(l)
}

func (c *auditChain) follow(l link) error {
	linked := c.hash == nil || bytes.Equal(l.prev, c.hash)
	if l.Sequence != c.seq+1 || !linked || !bytes.Equal(l.sum, l.ChainHash(l.prev)) {
		return fmt.Errorf("audit entry %d does not follow entry %d: %w", l.Sequence, c.seq, ErrTampered)
	}
	c.seq, c.hash = l.Sequence, l.sum
	return nil
}
