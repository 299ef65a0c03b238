package store

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// The audit chain shows an edited or removed entry by itself, a tail cut off
// it does not. So every transaction that appends signs the new end, with a key
// that lies sealed in the store: who can write the database but has no
// MasterKey can neither sign another end nor go back to one not kept.

const (
	auditKeyName  = "audit signing key" // sealed Ed25519 seed
	auditHeadName = "audit head"        // JSON of kbs.AuditHead
)

// AuditHead is the end of the chain as last signed. ErrNotFound if nothing
// was ever signed: entries written without the MasterKey wait for the next
// start with it.
func (s *DB) AuditHead(ctx context.Context) (kbs.AuditHead, error) {
	return readAuditHead(s.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", auditHeadName))
}

func readAuditHead(r row) (h kbs.AuditHead, err error) {
	var b []byte
	err = r.Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return h, fmt.Errorf("signed audit head: %w", ErrNotFound)
	}
	if err != nil {
		return h, fmt.Errorf("reading audit head: %w", err)
	}
	if err := kbs.UnmarshalStrict(b, &h); err != nil {
		return h, fmt.Errorf("reading audit head: %w: %w", ErrTampered, err)
	}
	if err := h.Verify(); err != nil {
		return h, fmt.Errorf("reading audit head: %w: %w", ErrTampered, err)
	}
	return h, nil
}

// AuditKey is the key that signs audit heads, as only the holder of the
// MasterKey can tell it: the public key in a head says itself who it is.
func (s *DB) AuditKey(ctx context.Context, master secret.Bytes) (ed25519.PublicKey, error) {
	sealer, err := masterkey.NewSealer(master, s.opts.Rand)
	if err != nil {
		return nil, err
	}
	k, err := readAuditKey(ctx, s.db, sealer)
	if err != nil {
		return nil, err
	}
	return k.Public().(ed25519.PublicKey), nil
}

func readAuditKey(ctx context.Context, db *sql.DB, sealer *masterkey.Sealer) (ed25519.PrivateKey, error) {
	var sealed []byte
	err := db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = ?", auditKeyName).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("audit signing key: %w", ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading audit signing key: %w", err)
	}
	seed, err := sealer.Open(sealed, masterkey.Location("meta", auditKeyName))
	if err != nil || seed.Len() != ed25519.SeedSize {
		return nil, fmt.Errorf("opening audit signing key: %w", ErrTampered)
	}
	defer seed.Wipe()
	return ed25519.NewKeyFromSeed(seed.Reveal()), nil
}

// openAudit readies signing, makes the key if there is none yet, and refuses a
// store whose chain no longer holds the entry signed last.
func (s *DB) openAudit(ctx context.Context) error {
	if s.sealer == nil {
		return nil
	}
	k, err := readAuditKey(ctx, s.db, s.sealer)
	if errors.Is(err, ErrNotFound) {
		k, err = s.makeAuditKey(ctx)
	}
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		h, err := readAuditHead(tx.QueryRow("SELECT value FROM meta WHERE name = ?", auditHeadName))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && !k.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(h.PublicKey)) {
			return fmt.Errorf("audit head is signed by another key: %w", ErrTampered)
		}
		if err := holdsHead(tx, h); err != nil {
			return err
		}
		s.auditKey, s.head, s.audited = k, h, true
		return nil
	})
}

func (s *DB) makeAuditKey(ctx context.Context) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(s.opts.Rand, seed); err != nil {
		return nil, fmt.Errorf("making audit signing key: %w", err)
	}
	held := secret.New(seed)
	defer held.Wipe()
	sealed, err := s.sealer.Seal(held, masterkey.Location("meta", auditKeyName))
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO NOTHING", auditKeyName, sealed)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("storing audit signing key: %w", err)
	}
	return readAuditKey(ctx, s.db, s.sealer)
}

// holdsHead says whether the chain still has the entry that h signs.
func holdsHead(tx *sql.Tx, h kbs.AuditHead) error {
	if h.Sequence == 0 {
		return nil
	}
	var sum []byte
	err := tx.QueryRow("SELECT hash FROM audit WHERE seq = ?", h.Sequence).Scan(&sum)
	if errors.Is(err, sql.ErrNoRows) || err == nil && hex.EncodeToString(sum) != h.Hash {
		return fmt.Errorf("audit entry %d, signed last, is gone: %w", h.Sequence, ErrTampered)
	}
	return err
}

// checkHead sees that nothing is signed over: what this server signed last is
// still there, and so is what another signed after it.
func (s *DB) checkHead(tx *sql.Tx) error {
	if err := holdsHead(tx, s.head); err != nil || !s.engine.served() {
		return err
	}
	h, err := readAuditHead(tx.QueryRow("SELECT value FROM meta WHERE name = ?", auditHeadName))
	switch {
	case errors.Is(err, ErrNotFound) && s.head.Sequence == 0:
		return nil
	case errors.Is(err, ErrNotFound) || err == nil && h.Sequence < s.head.Sequence:
		return fmt.Errorf("audit head is older than entry %d, signed last: %w", s.head.Sequence, ErrTampered)
	case err != nil:
		return err
	case !s.auditKey.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(h.PublicKey)):
		return fmt.Errorf("audit head is signed by another key: %w", ErrTampered)
	}
	return holdsHead(tx, h)
}

// signHead signs the end of the chain within the transaction that moved it.
// It runs on the write loop alone.
func (s *DB) signHead(tx *sql.Tx) (kbs.AuditHead, error) {
	if !s.audited || s.auditKey == nil {
		return s.head, nil
	}
	if err := s.checkHead(tx); err != nil {
		return s.head, err
	}
	h := kbs.AuditHead{At: fromMilli(unixMilli(s.opts.Clock())), PublicKey: s.auditKey.Public().(ed25519.PublicKey)}
	var sum []byte
	err := tx.QueryRow("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&h.Sequence, &sum)
	if errors.Is(err, sql.ErrNoRows) || err == nil && h.Sequence == s.head.Sequence {
		return s.head, nil
	}
	if err != nil {
		return s.head, fmt.Errorf("signing audit head: %w", err)
	}
	h.Hash = hex.EncodeToString(sum)
	m, err := h.Message()
	if err != nil {
		return s.head, fmt.Errorf("signing audit head: %w", err)
	}
	h.Signature = ed25519.Sign(s.auditKey, m)
	b, err := json.Marshal(h)
	if err != nil {
		return s.head, err
	}
	_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", auditHeadName, b)
	return h, err
}
