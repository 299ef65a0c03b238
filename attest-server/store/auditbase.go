package store

import (
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Entries that are in an archive need not stay in the store. Then a signed base
// stands for them: the log begins behind it. It is always at the edge of a tile, so
// that the hashes that the store keeps of the tree are enough for every proof about
// what comes after.

// readBase is the base, whose signature is right; the zero value stands for none.
// Whose key has signed is for the caller to check.
func readBase(r row) (b kbs.AuditBase, err error) {
	text, err := readMeta(r)
	if errors.Is(err, sql.ErrNoRows) {
		return b, nil
	}
	if err == nil {
		err = kbs.UnmarshalStrict(text, &b)
		if err == nil {
			err = b.Verify()
		}
		if err == nil && b.Sequence%(1<<checkpoint.TileLevels) != 0 {
			err = fmt.Errorf("entry %d is not the last of a tile", b.Sequence)
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrTampered, err)
		}
	}
	if err != nil {
		return kbs.AuditBase{}, fmt.Errorf("reading audit base: %w", err)
	}
	return b, nil
}

// putBase puts b, which is signed, into the store.
func putBase(tx *sql.Tx, b kbs.AuditBase) error {
	text, err := json.Marshal(b)
	if err == nil {
		_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", auditBaseName, text)
	}
	return err
}

// sealBase signs b, now.
func sealBase(k ed25519.PrivateKey, now time.Time, b kbs.AuditBase) (kbs.AuditBase, error) {
	b.At, b.PublicKey = fromMilli(unixMilli(now)), k.Public().(ed25519.PublicKey)
	m, err := b.Message()
	if err != nil {
		return b, fmt.Errorf("signing audit base: %w", err)
	}
	b.Signature = ed25519.Sign(k, m)
	return b, nil
}

// beginning is where the chain of the store begins: behind base, or with entry 1.
func beginning(b kbs.AuditBase) auditChain {
	sum, err := hex.DecodeString(b.Hash)
	if b.Sequence == 0 || err != nil {
		sum = make([]byte, sha256.Size)
	}
	return auditChain{seq: b.Sequence, hash: sum}
}

// followsBase checks that the store's first entry follows base, and that none before
// it is there.
func followsBase(tx *sql.Tx, b kbs.AuditBase) error {
	l, err := scanLink(tx.QueryRow("SELECT " + auditColumns + " FROM audit ORDER BY seq LIMIT 1"))
	if errors.Is(err, sql.ErrNoRows) && b.Sequence == 0 {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("the audit log ends with its base, entry %d, and archiving leaves an entry behind it: %w", b.Sequence, ErrTampered)
	}
	if err != nil {
		return fmt.Errorf("reading audit: %w", err)
	}
	chain := beginning(b)
	return chain.follow(l)
}

// hashOf is an entry's hash, also of the last that was archived.
func hashOf(tx *sql.Tx, seq int64, b kbs.AuditBase) (string, error) {
	if seq > 0 && seq == b.Sequence {
		return b.Hash, nil
	}
	var sum []byte
	err := tx.QueryRow("SELECT hash FROM audit WHERE seq = ?", seq).Scan(&sum)
	return hex.EncodeToString(sum), err
}
