package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// checkpoints are how others are told of the audit log, and can hold it to that.
type checkpoints struct{ *core }

// Checkpoint signs the tree over all entries that are signed now, whichever
// server wrote them, and keeps it. ErrLocked without the MasterKey.
func (s checkpoints) Checkpoint(ctx context.Context) (signed checkpoint.Signed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		head := &s.log.head
		if head.key == nil {
			return ErrLocked
		}
		h, err := head.check(tx)
		if err != nil {
			return err
		}
		t, err := head.tree.extend(tx, h, nil)
		if err != nil {
			return err
		}
		b, err := t.keep(tx)
		if err != nil {
			return err
		}
		signed, err = checkpoint.Open(b, []checkpoint.Verifier{t.signer.Verifier()})
		return err
	})
	if err != nil {
		return checkpoint.Signed{}, fmt.Errorf("signing checkpoint: %w", err)
	}
	return signed, nil
}

// LogKeys are the keys whose checkpoints of this log count, the one in use first.
// ErrLocked without the MasterKey.
func (s checkpoints) LogKeys(ctx context.Context) (keys []checkpoint.Verifier, err error) {
	err = s.write(ctx, func(*sql.Tx) error {
		if s.log.head.key == nil {
			return ErrLocked
		}
		keys = []checkpoint.Verifier{s.log.head.tree.signer.Verifier()}
		return nil
	})
	return keys, err
}

// RootAt is the root over the first size entries, as the store has them now.
func (s checkpoints) RootAt(ctx context.Context, size int64) (tlog.Hash, error) {
	t, err := checkpoint.ReadTree(size, treeReader{ctx, s.db})
	if err != nil {
		return tlog.Hash{}, fmt.Errorf("reading audit tree at entry %d: %w", size, err)
	}
	return t.Root(), nil
}

// Consistency proves, as RFC 6962 does, that the tree of the first to entries
// begins with the tree of the first from.
func (s checkpoints) Consistency(ctx context.Context, from, to int64) ([]tlog.Hash, error) {
	if from < 0 || from > to {
		return nil, fmt.Errorf("proving that %d entries extend %d: there is no such proof", to, from)
	}
	if from == 0 || from == to {
		return nil, nil
	}
	p, err := tlog.ProveTree(to, from, treeReader{ctx, s.db})
	if err != nil {
		if s.wasArchived(ctx, from+1) {
			err = checkpoint.ErrArchived
		}
		return nil, fmt.Errorf("proving that %d entries extend %d: %w", to, from, err)
	}
	return p, nil
}

// wasArchived says whether an entry is not here because it was archived: by the
// word of who has the log's key, so that nobody else can have a witness that
// contradicts the log taken for one that is only too old.
func (s checkpoints) wasArchived(ctx context.Context, seq int64) (was bool) {
	err := s.write(ctx, func(tx *sql.Tx) error {
		if s.log.head.key == nil {
			return ErrLocked
		}
		b, err := s.log.head.base(tx, s.log.head.key)
		was = seq <= b.Sequence
		return err
	})
	return err == nil && was
}

// SetWitnessed keeps the checkpoint that witnesses had last, with their
// cosignatures.
func (s checkpoints) SetWitnessed(ctx context.Context, c checkpoint.Signed) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", witnessedName, c.Note)
		return err
	})
}

// Witnessed is what SetWitnessed kept. ErrNotFound: nothing yet. Whoever reads
// it checks its signatures.
func (s checkpoints) Witnessed(ctx context.Context) ([]byte, error) {
	b, err := readMeta(s.db.QueryRowContext(ctx, selectMeta, witnessedName))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("witnessed checkpoint: %w", ErrNotFound)
	}
	return b, err
}

// Note adds an entry of what the operator did to the log itself.
func (s checkpoints) Note(ctx context.Context, action, object, detail string) error {
	return s.write(ctx, func(tx *sql.Tx) error { return s.log.append(tx, keylessActor, action, object, detail) })
}

// TreePlace is where a hash of the audit tree is: the Nth of tile level Level.
type TreePlace struct {
	Level int
	N     int64
}

// KeptTree is what the store keeps of the tree, unchecked, but for the leaves of
// archived entries.
func (s checkpoints) KeptTree(ctx context.Context) (map[TreePlace]tlog.Hash, error) {
	kept := map[TreePlace]tlog.Hash{}
	_, err := list(ctx, s.db, func(r row) (struct{}, error) {
		var at TreePlace
		var b []byte
		err := r.Scan(&at.Level, &at.N, &b)
		if err == nil && len(b) != tlog.HashSize {
			err = fmt.Errorf("hash %d at level %d has %d bytes: %w", at.N, at.Level, len(b), ErrTampered)
		}
		if err == nil {
			kept[at] = tlog.Hash(b)
		}
		return struct{}{}, err
	}, "SELECT level, n, hash FROM audit_tree WHERE level > 0")
	if err != nil {
		return nil, fmt.Errorf("reading audit tree: %w", err)
	}
	return kept, nil
}

// KeptCheckpoint is the checkpoint signed last, unchecked. ErrNotFound: none.
func (s checkpoints) KeptCheckpoint(ctx context.Context) ([]byte, error) {
	b, err := readMeta(s.db.QueryRowContext(ctx, selectMeta, checkpointName))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("checkpoint: %w", ErrNotFound)
	}
	return b, err
}
