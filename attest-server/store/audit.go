package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

const auditLabel = "ccrun audit v1"

// AuditEntry is one link of the audit chain: who did what to what, when.
type AuditEntry = kbs.AuditEntry

// audit appends an entry within the transaction of the action itself: neither
// is on disk without the other. detail must hold no secret.
func (s *DB) audit(tx *sql.Tx, actor, action, object, detail string) error {
	e := AuditEntry{Actor: actor, Action: action, Object: object, Detail: detail, At: s.opts.Clock().UTC()}
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
	s.audited = true
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

// Audit calls each with every entry after the given sequence number, oldest
// first, having checked its link in the chain. A broken one is ErrTampered.
// What it cannot see is a tail cut off: compare with AuditHead.
func (s *DB) Audit(ctx context.Context, after int64, each func(AuditEntry) error) error {
	rows, err := s.db.QueryContext(ctx, `SELECT seq, at, actor, action, object, detail, prev, hash
		FROM audit WHERE seq >= ? ORDER BY seq`, after)
	if err != nil {
		return fmt.Errorf("reading audit: %w", err)
	}
	defer rows.Close()
	chain := auditChain{seq: after - 1}
	if after <= 0 {
		chain = auditChain{hash: make([]byte, sha256.Size)}
	}
	for rows.Next() {
		var e AuditEntry
		var at int64
		var prev, sum []byte
		if err := rows.Scan(&e.Sequence, &at, &e.Actor, &e.Action, &e.Object, &e.Detail, &prev, &sum); err != nil {
			return err
		}
		if err := chain.follow(e, at, prev, sum); err != nil {
			return err
		}
		if e.Sequence <= after {
			continue
		}
		e.At, e.Hash = fromMilli(at), hex.EncodeToString(sum)
		if err := each(e); err != nil {
			return err
		}
	}
	return rows.Err()
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
