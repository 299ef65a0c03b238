package store

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// auditLog is where entries are appended.
type auditLog struct {
	now  func() time.Time
	head headSigner

	toldBefore int64 // the hour before which all refusals are told
}

// append adds an entry within the transaction of the action itself: neither
// is on disk without the other. detail must hold no secret. An entry of its own
// says which ones before it came without the MasterKey and are now signed.
func (l *auditLog) append(tx *sql.Tx, actor, action, object, detail string) error {
	unsigned, err := l.head.begin(tx)
	if err == nil && unsigned.last > 0 {
		err = l.add(tx, "store", "audit.unsigned", unsigned.String(), "written without the master key")
	}
	if err != nil {
		return fmt.Errorf("appending to audit: %w", err)
	}
	return l.add(tx, actor, action, object, detail)
}

func (l *auditLog) add(tx *sql.Tx, actor, action, object, detail string) error {
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
	sum := e.ChainHash(prev)
	_, err = tx.Exec("INSERT INTO audit(seq, at, actor, action, object, detail, prev, hash) VALUES(?,?,?,?,?,?,?,?)",
		e.Sequence, unixMilli(e.At), actor, action, object, detail, prev, sum)
	if err != nil {
		return fmt.Errorf("appending to audit: %w", err)
	}
	if l.head.begun {
		l.head.own[e.Sequence] = hex.EncodeToString(sum)
	}
	return nil
}
