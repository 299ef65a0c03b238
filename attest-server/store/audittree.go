package store

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Over the chain grows a Merkle tree, whose leaves are the entries' hashes, so
// that others can hold the log to what it said once: see package checkpoint. The
// store keeps one hash for every 256 entries, for every 256 of those and so on,
// and a checkpoint of our own to hold them to at start; everything else of the
// tree follows from the entries.

// tileWidth is how many hashes are below one that is kept.
const tileWidth = 1 << checkpoint.TileLevels

// auditTree is the tree over the first entries. It is a value: a transaction
// that fails leaves its old one.
type auditTree struct {
	checkpoint.Tree
	end    string // hash of the last entry in it
	signer *checkpoint.Signer
}

// openAuditTree is the tree over the entries up to head, which is checked. What
// of it the store has is held against the checkpoint signed last. Without that
// one, all of it behind base is made anew from the chain, which leads to head.
func openAuditTree(tx *sql.Tx, k ed25519.PrivateKey, origin string, head kbs.AuditHead, base kbs.AuditBase) (t auditTree, err error) {
	t.end = noHash
	if t.signer, err = checkpoint.LogSigner(origin, k); err != nil {
		return t, err
	}
	kept, err := t.kept(tx)
	if err == nil {
		t, err = t.load(tx, kept, head, base)
	} else if errors.Is(err, ErrNotFound) && base.Sequence > 0 {
		t, err = t.atBase(tx, base)
	}
	if err == nil || errors.Is(err, ErrNotFound) {
		t, err = t.extend(tx, head, nil)
	}
	if err == nil && t.Size() != kept.Size {
		_, err = t.keep(tx)
	}
	return t, err
}

// kept is the checkpoint in the store.
func (t auditTree) kept(tx *sql.Tx) (s checkpoint.Signed, err error) {
	b, err := readMeta(tx.QueryRow(selectMeta, checkpointName))
	if errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("checkpoint: %w", ErrNotFound)
	}
	if err != nil {
		return s, fmt.Errorf("reading checkpoint: %w", err)
	}
	if s, err = checkpoint.Open(b, []checkpoint.Verifier{t.signer.Verifier()}); err != nil {
		return s, fmt.Errorf("reading checkpoint: %w: %w", ErrTampered, err)
	}
	return s, nil
}

// load is the tree as of c.
func (t auditTree) load(tx *sql.Tx, c checkpoint.Signed, head kbs.AuditHead, base kbs.AuditBase) (auditTree, error) {
	if c.Size > head.Sequence {
		return t, fmt.Errorf("audit log ends at entry %d, and there is a checkpoint of %d entries: %w", head.Sequence, c.Size, ErrTampered)
	}
	var err error
	if t.Tree, err = checkpoint.ReadTree(c.Size, treeReader{context.Background(), tx}); err != nil {
		return t, fmt.Errorf("reading audit tree: %w", err)
	}
	if t.Root() != c.Root {
		return t, fmt.Errorf("audit tree of %d entries has root %s, and its checkpoint says %s: %w", c.Size, t.Root(), c.Root, ErrTampered)
	}
	if c.Size > 0 {
		if t.end, err = hashOf(tx, c.Size, base); err != nil {
			return t, fmt.Errorf("reading audit entry %d: %w", c.Size, err)
		}
	}
	return t, nil
}

// atBase is the tree of the entries that b stands for.
func (t auditTree) atBase(tx *sql.Tx, b kbs.AuditBase) (auditTree, error) {
	var err error
	if t.Tree, err = checkpoint.ReadTree(b.Sequence, treeReader{context.Background(), tx}); err != nil {
		return t, fmt.Errorf("reading audit tree: %w", err)
	}
	if root := t.Root().String(); root != b.Root {
		return t, fmt.Errorf("audit tree of the %d entries archived has root %s, and their base says %s: %w", b.Sequence, root, b.Root, ErrTampered)
	}
	t.end = b.Hash
	return t, nil
}

// follows proves that t leads on from before: to the last entry, unless more were
// archived since than the store keeps leaves of; then as far as whole tiles go.
func (t auditTree) follows(tx *sql.Tx, before checkpoint.Tree) error {
	old := before
	if t.Size()-before.Size() > keptLeaves-tileWidth {
		whole := before.Size() - before.Size()%tileWidth
		var err error
		if old, err = checkpoint.TreeOf(whole, before.Edge()[:bits.OnesCount64(uint64(whole))]); err != nil {
			return err
		}
	}
	var proof tlog.TreeProof
	if size := old.Size(); size > 0 && size < t.Size() {
		var err error
		if proof, err = tlog.ProveTree(t.Size(), size, treeReader{context.Background(), tx}); err != nil {
			return fmt.Errorf("proving that the audit tree of %d entries leads to that of %d: %w: %w", size, t.Size(), ErrTampered, err)
		}
	}
	from := checkpoint.Checkpoint{Size: old.Size(), Root: old.Root()}
	if err := checkpoint.Extends(proof, from, checkpoint.Checkpoint{Size: t.Size(), Root: t.Root()}); err != nil {
		return fmt.Errorf("the audit tree has gone another way: %w: %w", ErrTampered, err)
	}
	return nil
}

// keptLeaves is of how many archived entries the store keeps the hashes, at level
// 0: those of a tile prove that a server which signed within it is led on.
const keptLeaves = 1 << 16

// keepLeaves keeps the hashes of the entries up to upTo, which are cut next.
func keepLeaves(tx *sql.Tx, upTo int64) error {
	_, err := tx.Exec("INSERT INTO audit_tree(level, n, hash) SELECT 0, seq - 1, hash FROM audit WHERE seq <= ? ON CONFLICT(level, n) DO UPDATE SET hash = excluded.hash", upTo)
	if err == nil {
		_, err = tx.Exec("DELETE FROM audit_tree WHERE level = 0 AND n < ?", upTo-keptLeaves)
	}
	if err != nil {
		return fmt.Errorf("keeping hashes of archived entries: %w", err)
	}
	return nil
}

// extend is the tree up to the entry that head signs. own are hashes of entries
// that this transaction has made; all others are read and checked.
func (t auditTree) extend(tx *sql.Tx, head kbs.AuditHead, own map[int64]string) (auditTree, error) {
	before := t.Size()
	t.Tree = t.Tree.Clone()
	if own[t.Size()+1] == "" {
		if err := t.follow(tx, head.Sequence); err != nil {
			return t, fmt.Errorf("extending audit tree: %w", err)
		}
	}
	for t.Size() < head.Sequence && own[t.Size()+1] != "" {
		if err := t.add(tx, own[t.Size()+1]); err != nil {
			return t, fmt.Errorf("extending audit tree: %w", err)
		}
	}
	if t.Size() != head.Sequence || t.end != head.Hash {
		return t, fmt.Errorf("audit chain leads from entry %d to entry %d, hash %s, and not to %d, hash %s, signed last: %w",
			before, t.Size(), t.end, head.Sequence, head.Hash, ErrTampered)
	}
	if before/tileWidth != t.Size()/tileWidth {
		if _, err := t.keep(tx); err != nil {
			return t, err
		}
	}
	return t, nil
}

// follow adds the entries of the chain up to number to.
func (t *auditTree) follow(tx *sql.Tx, to int64) error {
	for t.Size() < to { // in pages: PostgreSQL takes no statement while rows are open
		sums, err := t.page(tx, to)
		if err != nil {
			return err
		}
		if len(sums) == 0 {
			return nil // extend says so
		}
		for _, sum := range sums {
			if err := t.add(tx, sum); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *auditTree) page(tx *sql.Tx, to int64) (sums []string, err error) {
	end, err := hex.DecodeString(t.end)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query("SELECT "+auditColumns+" FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT 1024", t.Size(), to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for chain := (auditChain{t.Size(), end}); rows.Next(); {
		e, err := chain.next(rows)
		if err != nil {
			return nil, err
		}
		sums = append(sums, e.Hash)
	}
	return sums, rows.Err()
}

// add is the next entry's hash.
func (t *auditTree) add(tx *sql.Tx, sum string) error {
	leaf, err := hex.DecodeString(sum)
	if err != nil {
		return err
	}
	for _, n := range t.Append(leaf) {
		_, err := tx.Exec("INSERT INTO audit_tree(level, n, hash) VALUES(?,?,?) ON CONFLICT(level, n) DO UPDATE SET hash = excluded.hash",
			n.Level/checkpoint.TileLevels, n.N, n.Hash[:])
		if err != nil {
			return err
		}
	}
	t.end = sum
	return nil
}

// sign is the tree's checkpoint.
func (t auditTree) sign() ([]byte, error) {
	return checkpoint.SignCheckpoint(checkpoint.Checkpoint{Origin: t.signer.Name(), Size: t.Size(), Root: t.Root()}, t.signer)
}

// keep signs the tree's checkpoint and puts it into the store.
func (t auditTree) keep(tx *sql.Tx) ([]byte, error) {
	b, err := t.sign()
	if err == nil {
		_, err = tx.Exec("INSERT INTO meta(name, value) VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value", checkpointName, b)
	}
	if err != nil {
		return nil, fmt.Errorf("keeping checkpoint: %w", err)
	}
	return b, nil
}

// treeReader reads hashes of the tree. What it reads is to be checked.
type treeReader struct {
	ctx  context.Context
	from querier
}

// ReadHashes implements tlog.HashReader.
func (r treeReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, 0, len(indexes))
	for _, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		h, err := r.hash(level, n)
		if err != nil {
			return nil, fmt.Errorf("hash %d at level %d: %w", n, level, err)
		}
		all = append(all, h)
	}
	return all, nil
}

// hash is the root of the nth complete subtree of 2^level entries, from the
// hashes of the tile in which it is.
func (r treeReader) hash(level int, n int64) (tlog.Hash, error) {
	width := int64(1) << (level % checkpoint.TileLevels)
	hashes, err := r.row(level/checkpoint.TileLevels, n*width, width)
	if err != nil {
		return tlog.Hash{}, err
	}
	for ; len(hashes) > 1; hashes = hashes[:len(hashes)/2] {
		for i := range len(hashes) / 2 {
			hashes[i] = tlog.NodeHash(hashes[2*i], hashes[2*i+1])
		}
	}
	return hashes[0], nil
}

// row is count hashes from number first, of tile level level.
func (r treeReader) row(level int, first, count int64) ([]tlog.Hash, error) {
	query, args := "SELECT n, hash FROM audit_tree WHERE level = ?1 AND n >= ?2 AND n < ?3 ORDER BY n", []any{level, first, first + count}
	if level == 0 {
		// Whatever is in both is read twice, and refused.
		query = `SELECT seq - 1 AS n, hash FROM audit WHERE seq > ?2 AND seq <= ?3
			UNION ALL SELECT n, hash FROM audit_tree WHERE level = ?1 AND n >= ?2 AND n < ?3 ORDER BY n`
	}
	hashes, err := list(r.ctx, r.from, func(x row) (h tlog.Hash, err error) {
		var n int64
		var b []byte
		if err := x.Scan(&n, &b); err != nil {
			return h, err
		}
		if len(b) != tlog.HashSize || n < first {
			return h, fmt.Errorf("hash %d of %d bytes: %w", n, len(b), ErrTampered)
		}
		if level == 0 {
			return tlog.RecordHash(b), nil
		}
		return tlog.Hash(b), nil
	}, query, args...)
	if err == nil && int64(len(hashes)) != count {
		err = fmt.Errorf("%d of %d hashes from number %d: %w", len(hashes), count, first, ErrTampered)
	}
	return hashes, err
}
