package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

const auditLabel = "ccrun audit v1"

// AuditEntry is one link of the audit chain: who did what to what, when.
type AuditEntry = kbs.AuditEntry

// auditHash is SHA-256 over the label, the previous hash and every member,
// each behind its length.
func auditHash(e AuditEntry, at int64, prev []byte) []byte {
	h := sha256.New()
	frame(h, []byte(auditLabel))
	frame(h, prev)
	frame(h, binary.BigEndian.AppendUint64(nil, uint64(e.Sequence)))
	frame(h, binary.BigEndian.AppendUint64(nil, uint64(at)))
	for _, s := range []string{e.Actor, e.Action, e.Object, e.Detail} {
		frame(h, []byte(s))
	}
	return h.Sum(nil)
}

func frame(h hash.Hash, b []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}

// auditChain is how far the chain has been followed. hash is nil before the
// first entry of a walk that starts in the middle.
type auditChain struct {
	seq  int64
	hash []byte
}

// next is the entry of a row of all columns, if it follows.
func (c *auditChain) next(r row) (e AuditEntry, err error) {
	var at int64
	var prev, sum []byte
	if err := r.Scan(&e.Sequence, &at, &e.Actor, &e.Action, &e.Object, &e.Detail, &prev, &sum); err != nil {
		return e, err
	}
	e.At, e.Hash = fromMilli(at), hex.EncodeToString(sum)
	return e, c.follow(e, at, prev, sum)
}

func (c *auditChain) follow(e AuditEntry, at int64, prev, sum []byte) error {
	linked := c.hash == nil || string(prev) == string(c.hash)
	if e.Sequence != c.seq+1 || !linked || string(sum) != string(auditHash(e, at, prev)) {
		return fmt.Errorf("audit entry %d does not follow entry %d: %w", e.Sequence, c.seq, ErrTampered)
	}
	c.seq, c.hash = e.Sequence, sum
	return nil
}
