package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// cutAtOnce is how many entries one transaction cuts: guests' writes wait for it.
const cutAtOnce = 16 * tileWidth

// CanArchive is the last entry that may be archived now, and the entry that the
// log begins behind: no more than witnesses have seen, if there are any, and up to
// the edge of a tile.
func (s *DB) CanArchive(ctx context.Context) (from, to int64, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		head := &s.log.head
		if head.key == nil {
			return ErrLocked
		}
		h, err := head.check(tx)
		if err != nil {
			return err
		}
		b, err := head.base(tx, head.key)
		if err != nil {
			return err
		}
		from, to = b.Sequence, h.Sequence
		seen, err := s.witnessedSize(tx)
		if err != nil {
			return err
		}
		if seen >= 0 {
			to = min(to, seen)
		}
		to -= to % tileWidth
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("looking for what can be archived: %w", err)
	}
	return from, max(from, to), nil
}

// witnessedSize is how many entries witnesses have seen of this log; -1: there
// are none.
func (s *DB) witnessedSize(tx *sql.Tx) (int64, error) {
	b, err := readMeta(tx.QueryRow(selectMeta, witnessedName))
	if errors.Is(err, sql.ErrNoRows) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := checkpoint.Open(b, []checkpoint.Verifier{s.log.head.tree.signer.Verifier()})
	if err != nil {
		return 0, fmt.Errorf("the witnessed checkpoint: %w: %w", ErrTampered, err)
	}
	return c.Size, nil
}

// SignArchive signs what would stand for the entries up to number to, whose hash
// was read from the chain.
func (s *DB) SignArchive(ctx context.Context, to int64, hash string) (b kbs.AuditBase, err error) {
	err = s.write(ctx, func(tx *sql.Tx) (err error) {
		b, err = s.provenBase(tx, to, hash)
		return err
	})
	if err != nil {
		return b, fmt.Errorf("archiving up to entry %d: %w", to, err)
	}
	return b, nil
}

// provenBase signs a base only of what is proven to be in the tree that was
// checked when it was built: whoever writes the database may have changed what is
// read here.
func (s *DB) provenBase(tx *sql.Tx, to int64, hash string) (b kbs.AuditBase, err error) {
	head := &s.log.head
	if head.key == nil {
		return b, ErrLocked
	}
	h, err := head.check(tx)
	if err != nil {
		return b, err
	}
	seen, err := s.witnessedSize(tx)
	switch {
	case err != nil:
		return b, err
	case to <= 0 || to%tileWidth != 0 || to > h.Sequence:
		return b, fmt.Errorf("the log has %d entries, and is cut behind a multiple of %d", h.Sequence, tileWidth)
	case seen >= 0 && to > seen:
		return b, fmt.Errorf("witnesses have seen %d entries, and what they have not is not archived", seen)
	}
	t, err := head.tree.extend(tx, h, nil)
	if err != nil {
		return b, err
	}
	head.last, head.tree = h, t // which is what follows once what is before is cut
	root, err := provenRoot(tx, t.Tree, to, hash)
	if err != nil {
		return b, err
	}
	return sealBase(head.key, head.now(), kbs.AuditBase{Sequence: to, Hash: hash, Root: root.String()})
}

// provenRoot is the root of t's first to leaves, the last of which is an entry's
// hash.
func provenRoot(tx *sql.Tx, t checkpoint.Tree, to int64, hash string) (root tlog.Hash, err error) {
	r := treeReader{context.Background(), tx}
	leaf, err := hex.DecodeString(hash)
	if err != nil {
		return root, err
	}
	inclusion, err := tlog.ProveRecord(t.Size(), to-1, r)
	if err == nil {
		err = tlog.CheckRecord(inclusion, t.Size(), t.Root(), to-1, tlog.RecordHash(leaf))
	}
	if err != nil {
		return root, fmt.Errorf("entry %d is not %s: %w: %w", to, hash, ErrTampered, err)
	}
	first, err := checkpoint.ReadTree(to, r)
	if err != nil {
		return root, err
	}
	root = first.Root()
	if to == t.Size() {
		if root != t.Root() {
			err = ErrTampered
		}
		return root, err
	}
	proof, err := tlog.ProveTree(t.Size(), to, r)
	if err == nil {
		err = tlog.CheckTree(proof, t.Size(), t.Root(), to, root)
	}
	if err != nil {
		return root, fmt.Errorf("the tree of %d entries does not lead to that of %d: %w: %w", to, t.Size(), ErrTampered, err)
	}
	return root, nil
}

// Cut removes the entries up to to's, which are in an archive: the caller has read
// that back. It does so a part at a time, each in a transaction that moves the base;
// killed, it can be run again. The first part has an audit entry with detail.
func (s *DB) Cut(ctx context.Context, to kbs.AuditBase, detail string) error {
	for told := false; ; told = true {
		done := false
		err := s.write(ctx, func(tx *sql.Tx) error {
			if s.log.head.key == nil {
				return ErrLocked
			}
			from, err := s.log.head.base(tx, s.log.head.key)
			if err != nil {
				return err
			}
			if done = from.Sequence >= to.Sequence; done {
				return nil
			}
			return s.cutPart(tx, from, to, detail, !told)
		})
		if err != nil {
			return fmt.Errorf("cutting the audit log behind entry %d: %w", to.Sequence, err)
		}
		if done {
			return nil
		}
	}
}

func (s *DB) cutPart(tx *sql.Tx, from, to kbs.AuditBase, detail string, tell bool) error {
	// That the archive's end is in the log shows that all of it is: it is a chain.
	if _, err := s.provenBase(tx, to.Sequence, to.Hash); err != nil {
		return err
	}
	part := min(to.Sequence, from.Sequence+cutAtOnce)
	hash, err := hashOf(tx, part, from)
	if err != nil {
		return fmt.Errorf("reading audit entry %d: %w", part, err)
	}
	b, err := s.provenBase(tx, part, hash)
	if err != nil {
		return err
	}
	if tell { // before the cut, which leaves it, or what follows the archive
		object := entries{from.Sequence + 1, to.Sequence}.String()
		if err := s.log.append(tx, keylessActor, "audit.archive", object, detail); err != nil {
			return err
		}
	}
	if err := putBase(tx, b); err != nil {
		return err
	}
	if _, err := s.log.head.tree.keep(tx); err != nil { // or there may be none behind the base
		return err
	}
	if err := keepLeaves(tx, part); err != nil {
		return err
	}
	if err := s.removeEntries(tx, part); err != nil {
		return err
	}
	return followsBase(tx, b)
}

func (s *DB) removeEntries(tx *sql.Tx, upTo int64) error {
	return s.db.Unguarded(tx, "audit", "audit_delete", noDelete, func() error {
		return changed(tx.Exec("DELETE FROM audit WHERE seq <= ?", upTo))
	})
}
