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
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// The chain itself shows that an entry was edited or removed, but not that its
// end was cut off. So each transaction that appends signs the new end, with a
// key that lies sealed in the store. Who can write the database but has no
// MasterKey cannot sign another end, and can go back only to one that he has
// kept a copy of.

// headSigner signs the end of the chain. Only the Writer's goroutine uses it.
type headSigner struct {
	now    func() time.Time
	shared bool               // others sign, too
	key    ed25519.PrivateKey // nil without the MasterKey
	last   kbs.AuditHead      // signed last, by this server
	moved  bool               // the chain may have moved since
}

func readAuditHead(r row) (h kbs.AuditHead, err error) {
	b, err := readMeta(r)
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

// open readies signing, makes the key if there is none yet, and refuses a
// store whose chain no longer holds the entry signed last.
func (s *headSigner) open(ctx context.Context, values sealedValues, rand io.Reader) error {
	if values.sealer == nil {
		return nil
	}
	seed, err := values.readOrMake(ctx, auditKeyName, func() (secret.Bytes, error) {
		b := make([]byte, ed25519.SeedSize)
		_, err := io.ReadFull(rand, b)
		return secret.New(b), err
	})
	if err != nil {
		return err
	}
	k, err := asAuditKey(seed)
	if err != nil {
		return err
	}
	return values.writer.Write(ctx, func(tx *sql.Tx) error {
		h, err := readAuditHead(tx.QueryRow(selectMeta, auditHeadName))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && !signedBy(h, k) {
			return fmt.Errorf("audit head is signed by another key: %w", ErrTampered)
		}
		if err := holdsHead(tx, h); err != nil {
			return err
		}
		s.key, s.last, s.moved = k, h, true
		return nil
	})
}

// asAuditKey wipes seed.
func asAuditKey(seed secret.Bytes) (ed25519.PrivateKey, error) {
	defer seed.Wipe()
	if seed.Len() != ed25519.SeedSize {
		return nil, fmt.Errorf("opening audit signing key: %w", ErrTampered)
	}
	return ed25519.NewKeyFromSeed(seed.Reveal()), nil
}

func signedBy(h kbs.AuditHead, k ed25519.PrivateKey) bool {
	return k.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(h.PublicKey))
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

// check sees that nothing is signed over: what this server signed last is
// still there, and so is what another signed after it.
func (s *headSigner) check(tx *sql.Tx) error {
	if err := holdsHead(tx, s.last); err != nil || !s.shared {
		return err
	}
	h, err := readAuditHead(tx.QueryRow(selectMeta, auditHeadName))
	switch {
	case errors.Is(err, ErrNotFound) && s.last.Sequence == 0:
		return nil
	case errors.Is(err, ErrNotFound) || err == nil && h.Sequence < s.last.Sequence:
		return fmt.Errorf("audit head is older than entry %d, signed last: %w", s.last.Sequence, ErrTampered)
	case err != nil:
		return err
	case !signedBy(h, s.key):
		return fmt.Errorf("audit head is signed by another key: %w", ErrTampered)
	}
	return holdsHead(tx, h)
}

// sign signs the end of the chain within the transaction that moved it, and
// remembers it once that is committed.
func (s *headSigner) sign(tx *sql.Tx) (committed func(), err error) {
	h := s.last
	if s.moved && s.key != nil {
		if h, err = s.next(tx); err != nil {
			return nil, err
		}
	}
	return func() { s.last, s.moved = h, false }, nil
}

// next signs the chain's end, if it is not the one signed last.
func (s *headSigner) next(tx *sql.Tx) (kbs.AuditHead, error) {
	if err := s.check(tx); err != nil {
		return s.last, err
	}
	h := kbs.AuditHead{At: fromMilli(unixMilli(s.now())), PublicKey: s.key.Public().(ed25519.PublicKey)}
	var sum []byte
	err := tx.QueryRow("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&h.Sequence, &sum)
	if errors.Is(err, sql.ErrNoRows) || err == nil && h.Sequence == s.last.Sequence {
		return s.last, nil
	}
	if err != nil {
		return s.last, fmt.Errorf("signing audit head: %w", err)
	}
	h.Hash = hex.EncodeToString(sum)
	m, err := h.Message()
	if err != nil {
		return s.last, fmt.Errorf("signing audit head: %w", err)
	}
	h.Signature = ed25519.Sign(s.key, m)
	b, err := json.Marshal(h)
	if err != nil {
		return s.last, err
	}
	_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", auditHeadName, b)
	return h, err
}
