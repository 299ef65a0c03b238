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

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/secret"
)

// The chain itself shows that an entry was edited or removed, but not that its
// end was cut off, nor who wrote it. So each transaction that appends signs the
// new end, with a key that lies sealed in the store and that the check value
// under the MasterKey names. Who can write the database but has no MasterKey
// cannot sign another end, can have none signed for him (see admit), and can go
// back only to one that he has kept a copy of.

// headSigner signs the end of the chain. Only the Writer's goroutine uses it.
type headSigner struct {
	now   func() time.Time
	key   ed25519.PrivateKey // nil without the MasterKey
	last  kbs.AuditHead      // signed last, by this process; others sign, too
	begun bool               // this transaction's first entry is being appended, or was
	own   map[int64]string   // hashes of this transaction's entries, by sequence number
	tree  auditTree          // over the entries up to last, or fewer
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

// open readies signing and refuses a store whose chain no longer holds the
// entry signed last. The check value names the log, and the key, which, and a
// signed head, must be there: what is missing was taken away. Only where the
// check value is an old one (nil) is that made up for, once.
func (s *headSigner) open(ctx context.Context, values sealedValues, rand io.Reader, named logIdentity, reseal func(logIdentity) ([]byte, error)) error {
	signer := named.key
	if values.sealer == nil {
		return nil
	}
	k, err := s.openKey(ctx, values, rand, signer)
	if err != nil {
		return err
	}
	return values.writer.Write(ctx, database.Guests, func(tx *sql.Tx) error {
		h, err := readAuditHead(tx.QueryRow(selectMeta, auditHeadName))
		switch {
		case errors.Is(err, ErrNotFound) && signer == nil:
			h, err = kbs.AuditHead{}, nil
		case errors.Is(err, ErrNotFound):
			err = fmt.Errorf("%w: %w", err, ErrTampered)
		case err == nil && !signedBy(h, k):
			err = fmt.Errorf("audit head is signed by another key: %w", ErrTampered)
		}
		if err == nil {
			err = holdsHead(tx, h)
		}
		var base kbs.AuditBase
		if err == nil {
			base, err = s.openBase(tx, k)
		}
		if err == nil && signer == nil {
			h, err = s.renew(tx, k, reseal)
		} else if err == nil {
			_, err = admit(tx, h)
		}
		var tree auditTree
		if err == nil {
			tree, err = openAuditTree(tx, k, nameLog(named, k).origin(), h, base)
		}
		if err == nil {
			s.key, s.last, s.tree = k, h, tree
		}
		return err
	})
}

// openKey is the signing key, which is made only for a store from before keys.
func (s *headSigner) openKey(ctx context.Context, values sealedValues, rand io.Reader, signer ed25519.PublicKey) (ed25519.PrivateKey, error) {
	var seed secret.Bytes
	var err error
	if signer == nil {
		seed, err = values.readOrMake(ctx, auditKeyName, func() (secret.Bytes, error) { return drawSeed(rand) })
	} else if seed, err = values.read(ctx, auditKeyName); errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w", err, ErrTampered)
	}
	if err != nil {
		return nil, err
	}
	k, err := asAuditKey(seed)
	if err == nil && signer != nil && !signer.Equal(k.Public()) {
		err = fmt.Errorf("audit signing key is not the one of this store: %w", ErrTampered)
	}
	return k, err
}

// renew signs all that an old store holds and puts k's name into its check
// value.
func (s *headSigner) renew(tx *sql.Tx, k ed25519.PrivateKey, reseal func(logIdentity) ([]byte, error)) (kbs.AuditHead, error) {
	check, err := reseal(nameLog(logIdentity{}, k))
	if err != nil {
		return kbs.AuditHead{}, err
	}
	if _, err = tx.Exec("UPDATE meta SET value = ? WHERE name = ?", check, checkName); err != nil {
		return kbs.AuditHead{}, err
	}
	h, err := chainEnd(tx)
	if err != nil {
		return h, err
	}
	return s.signHead(tx, k, h)
}

// chainEnd is the last entry, unsigned.
func chainEnd(tx *sql.Tx) (h kbs.AuditHead, err error) {
	var sum []byte
	err = tx.QueryRow("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").Scan(&h.Sequence, &sum)
	if errors.Is(err, sql.ErrNoRows) {
		return kbs.AuditHead{Hash: noHash}, nil
	}
	h.Hash = hex.EncodeToString(sum)
	return h, err
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
// still there, and so is what another signed after it. It returns what was
// signed last by either.
func (s *headSigner) check(tx *sql.Tx) (kbs.AuditHead, error) {
	err := holdsHead(tx, s.last)
	if errors.Is(err, ErrTampered) {
		err = s.catchUp(tx, err)
	}
	if err != nil {
		return s.last, err
	}
	h, err := readAuditHead(tx.QueryRow(selectMeta, auditHeadName))
	switch {
	case errors.Is(err, ErrNotFound) || err == nil && h.Sequence < s.last.Sequence:
		return h, fmt.Errorf("audit head is older than entry %d, signed last: %w", s.last.Sequence, ErrTampered)
	case err != nil:
		return h, err
	case !signedBy(h, s.key):
		return h, fmt.Errorf("audit head is signed by another key: %w", ErrTampered)
	}
	return h, holdsHead(tx, h)
}

// reset forgets the transaction before, be it committed or not.
func (s *headSigner) reset() { s.begun, s.own = false, nil }

// begin checks, before this transaction's first entry, what is there: what was
// signed, and what has come since without the MasterKey.
func (s *headSigner) begin(tx *sql.Tx) (unsigned entries, err error) {
	if s.begun || s.key == nil {
		return unsigned, nil
	}
	h, err := s.check(tx)
	if err != nil {
		return unsigned, err
	}
	if unsigned, err = admit(tx, h); err == nil {
		s.begun, s.own = true, map[int64]string{}
	}
	return unsigned, err
}

// sign signs the end of the chain within the transaction that moved it, and
// remembers it once that is committed.
func (s *headSigner) sign(tx *sql.Tx) (committed func(), err error) {
	h, tree := s.last, s.tree
	if s.begun {
		if h, err = s.next(tx); err == nil && h.Sequence > s.last.Sequence {
			tree, err = s.tree.extend(tx, h, s.own)
		}
	}
	if err != nil {
		return nil, err
	}
	return func() { s.last, s.tree = h, tree }, nil
}

// next signs the chain's end, which must be an entry of this transaction. If
// all of its writes were refused there is none.
func (s *headSigner) next(tx *sql.Tx) (kbs.AuditHead, error) {
	h, err := chainEnd(tx)
	if err != nil {
		return s.last, fmt.Errorf("signing audit head: %w", err)
	}
	if s.own[h.Sequence] != h.Hash {
		return s.last, nil
	}
	return s.signHead(tx, s.key, h)
}

// signHead signs h and puts it into the store.
func (s *headSigner) signHead(tx *sql.Tx, k ed25519.PrivateKey, h kbs.AuditHead) (kbs.AuditHead, error) {
	h.At, h.PublicKey = fromMilli(unixMilli(s.now())), k.Public().(ed25519.PublicKey)
	m, err := h.Message()
	if err != nil {
		return h, fmt.Errorf("signing audit head: %w", err)
	}
	h.Signature = ed25519.Sign(k, m)
	b, err := json.Marshal(h)
	if err != nil {
		return h, err
	}
	_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", auditHeadName, b)
	return h, err
}

// rename takes another name for the log, if the check value has one.
func (s *headSigner) rename(l logIdentity) (err error) {
	if s.key == nil || l.key == nil || s.tree.signer.Name() == l.origin() {
		return nil
	}
	s.tree.signer, err = checkpoint.LogSigner(l.origin(), s.key)
	return err
}

// base is the base in the store, which k must have signed.
func (s *headSigner) base(tx *sql.Tx, k ed25519.PrivateKey) (kbs.AuditBase, error) {
	b, err := readBase(tx.QueryRow(selectMeta, auditBaseName))
	if err == nil && b.Sequence > 0 && !k.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(b.PublicKey)) {
		return b, fmt.Errorf("audit base is signed by another key: %w", ErrTampered)
	}
	return b, err
}

// openBase is the base, and the store begins behind it.
func (s *headSigner) openBase(tx *sql.Tx, k ed25519.PrivateKey) (kbs.AuditBase, error) {
	b, err := s.base(tx, k)
	if err == nil {
		err = followsBase(tx, b)
	}
	return b, err
}

// catchUp goes on from the base, if another process has archived what this one
// signed last. Without a base that says so, it is gone; and a base of a log that
// went another way, from an older copy of the store, is no such.
func (s *headSigner) catchUp(tx *sql.Tx, gone error) error {
	b, err := s.openBase(tx, s.key)
	switch {
	case b.Sequence == 0:
		return gone
	case err != nil:
		return err
	case b.Sequence < s.last.Sequence || b.Sequence == s.last.Sequence && b.Hash != s.last.Hash:
		return gone
	}
	t, err := s.tree.atBase(tx, b)
	if err == nil {
		err = t.follows(tx, s.tree.Tree)
	}
	if err == nil {
		s.tree, s.last = t, kbs.AuditHead{Sequence: b.Sequence, Hash: b.Hash}
	}
	return err
}
