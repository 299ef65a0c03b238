package store

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

const auditLabel = "ccrun audit v1"

// AuditEntry is one link of the audit chain: who did what to what, when.
type AuditEntry = kbs.AuditEntry

// auditLog is where entries are appended.
type auditLog struct {
	now  func() time.Time
	head headSigner
}

// append adds an entry within the transaction of the action itself: neither
// is on disk without the other. detail must hold no secret.
func (l *auditLog) append(tx *sql.Tx, actor, action, object, detail string) error {
	e := AuditEntry{Actor: actor, Action: action, Object: object, Detail: detail, At: l.now().UTC()}
	var prev []byte
	err := tx.QueryRow("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&e.Sequence, &prev)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("appending to audit: %w", err)
	}
	if prev == nil {
		prev = make([]byte, sha256.Size)
	}
	e.Sequence++
	_, err = tx.Exec("INSERT INTO audit(seq, at, actor, action, object, detail, prev, hash) VALUES(?,?,?,?,?,?,?,?)",
		e.Sequence, unixMilli(e.At), actor, action, object, detail, prev, auditHash(e, unixMilli(e.At), prev))
	if err != nil {
		return fmt.Errorf("appending to audit: %w", err)
	}
	l.head.moved = true
	return nil
}

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

func (c *auditChain) follow(e AuditEntry, at int64, prev, sum []byte) error {
	linked := c.hash == nil || string(prev) == string(c.hash)
	if e.Sequence != c.seq+1 || !linked || string(sum) != string(auditHash(e, at, prev)) {
		return fmt.Errorf("audit entry %d does not follow entry %d: %w", e.Sequence, c.seq, ErrTampered)
	}
	c.seq, c.hash = e.Sequence, sum
	return nil
}
