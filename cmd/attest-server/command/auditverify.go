package command

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/witness"
)

// treeCheck builds the tree anew while the chain is walked, and holds it against
// what is kept of it and every checkpoint that was ever signed and is at hand.
type treeCheck struct {
	tree   checkpoint.Tree
	kept   map[store.TreePlace]checkpoint.Hash
	claims map[int64][]claim // by size
	count  int
	older  int // checkpoints of archived entries that are not at hand
}

// claim is what a checkpoint says of the log at one size.
type claim struct {
	who  string
	root checkpoint.Hash
}

// newTreeCheck reads what there is to compare with: the store's own and those of
// the configuration's directories. by is the key of the signed head.
func newTreeCheck(ctx context.Context, s *store.DB, by []byte, witnesses []witness.Named) (*treeCheck, error) {
	t := &treeCheck{claims: map[int64][]claim{}}
	var err error
	if t.kept, err = s.KeptTree(ctx); err != nil {
		return nil, err
	}
	own, err := s.KeptCheckpoint(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return t, nil // of a version before
	}
	if err != nil {
		return nil, err
	}
	c, err := checkpoint.Peek(own)
	if err != nil {
		return nil, fmt.Errorf("the store's checkpoint: %w: %w", store.ErrTampered, err)
	}
	keys := []checkpoint.Verifier{checkpoint.LogKey(c.Origin, by)}
	if err := t.claim("the store's checkpoint", own, keys); err != nil {
		return nil, err
	}
	seen, err := s.Witnessed(ctx)
	if err == nil {
		err = t.claim("the store's witnessed checkpoint", seen, keys)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	return t, t.claimFiles(c.Origin, keys, witnesses)
}

// claimFiles adds all that directories have of the log.
func (t *treeCheck) claimFiles(origin string, keys []checkpoint.Verifier, witnesses []witness.Named) error {
	for _, w := range witnesses {
		file, ok := w.Witness.(witness.File)
		if !ok {
			continue // the server asks it; it shows no history
		}
		err := file.Each(origin, func(b []byte) error { return t.claim("witness "+w.Name, b, keys) })
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", witness.ErrNothing, err)
		}
		if err != nil {
			return fmt.Errorf("reading witness %s: %w", w.Name, err)
		}
	}
	return nil
}

func (t *treeCheck) claim(who string, b []byte, keys []checkpoint.Verifier) error {
	c, err := checkpoint.Open(b, keys)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", who, store.ErrTampered, err)
	}
	t.count++
	t.claims[c.Size] = append(t.claims[c.Size], claim{who, c.Root})
	return t.settle(c.Size)
}

// add is the chain's next entry.
func (t *treeCheck) add(e kbs.AuditEntry) error {
	leaf, err := hex.DecodeString(e.Hash)
	if err != nil {
		return err
	}
	return t.completed(t.tree.Append(leaf))
}

// skip takes the tree over the first to entries from what is kept of it.
func (t *treeCheck) skip(to int64) error {
	for t.tree.Size() < to {
		at := store.TreePlace{Level: 1, N: t.tree.Size() >> checkpoint.TileLevels}
		root, ok := t.kept[at]
		if !ok {
			return fmt.Errorf("audit tree: hash %d at level 1 is missing: %w", at.N, store.ErrTampered)
		}
		nodes, err := t.tree.AppendTile(root)
		if err == nil {
			err = t.completed(nodes)
		}
		if err != nil {
			return err
		}
	}
	for size := range t.claims {
		if size < to {
			t.older += len(t.claims[size])
			delete(t.claims, size)
		}
	}
	return nil
}

// completed compares subtrees that are complete now with what is kept.
func (t *treeCheck) completed(nodes []checkpoint.Node) error {
	for _, n := range nodes {
		at := store.TreePlace{Level: n.Level / checkpoint.TileLevels, N: n.N}
		if have, ok := t.kept[at]; ok && have != n.Hash {
			return fmt.Errorf("audit tree: hash %d at level %d is %s, and the entries have %s: %w", n.N, at.Level, have, n.Hash, store.ErrTampered)
		}
		delete(t.kept, at)
	}
	return t.settle(t.tree.Size())
}

// settle compares the claims about the tree as it is now, if they are about it.
func (t *treeCheck) settle(size int64) error {
	if size != t.tree.Size() {
		return nil
	}
	for _, x := range t.claims[size] {
		if root := t.tree.Root(); x.root != root {
			return fmt.Errorf("%s has %d entries with root %s, and here they have %s: %w", x.who, size, x.root, root, store.ErrTampered)
		}
	}
	delete(t.claims, size)
	return nil
}

// end is called behind the last entry.
func (t *treeCheck) end() error {
	for size, list := range t.claims {
		return fmt.Errorf("%s has %d entries, and here there are %d: %w", list[0].who, size, t.tree.Size(), store.ErrTampered)
	}
	for at := range t.kept {
		return fmt.Errorf("audit tree: hash %d at level %d is of entries that are not there: %w", at.N, at.Level, store.ErrTampered)
	}
	return nil
}
