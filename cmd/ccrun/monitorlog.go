package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// auditSource is a server's audit log, as it shows it.
type auditSource interface {
	Checkpoint(ctx context.Context) ([]byte, error)
	Audit(ctx context.Context, after int64) (*kbs.AuditPage, error)
}

// seenLog is how far a monitor has followed a log: its state file.
type seenLog struct {
	Origin   string      `json:"origin"`
	Size     int64       `json:"size"` // entries
	End      string      `json:"end"`  // hash of the last: SHA-256, hex
	Edge     []string    `json:"edge"` // of the tree: the complete subtrees, largest first, hex
	Workload string      `json:"workload"`
	Releases []time.Time `json:"releases"` // of the workload's disk key, within the period
}

// monitored is what one look at the log finds.
type monitored struct {
	checkpoint checkpoint.Signed
	seen       seenLog
}

// errLog says that a server does not show the log that it once did.
var errLog = errors.New("the audit log is not what it was")

// monitorKeys are whose signatures a monitor asks for: of one of the log's keys,
// and of every witness.
type monitorKeys struct{ log, witnesses []checkpoint.Verifier }

// follow reads the log from where seen ends to its checkpoint, and checks each
// entry, the tree, and all signatures.
func (seen seenLog) follow(ctx context.Context, from auditSource, keys monitorKeys) (m monitored, err error) {
	b, err := from.Checkpoint(ctx)
	if err != nil {
		return m, fmt.Errorf("reading the checkpoint: %w", err)
	}
	if m.checkpoint, err = checkpoint.Open(b, keys.log, keys.witnesses...); err != nil {
		return m, err
	}
	for _, w := range keys.witnesses {
		if !slices.Contains(m.checkpoint.Cosigned, w.Name()) {
			return m, fmt.Errorf("the checkpoint of %d entries lacks the signature of witness %s", m.checkpoint.Size, w.Name())
		}
	}
	switch c := m.checkpoint; {
	case seen.Size > 0 && c.Origin != seen.Origin:
		return m, hint.With(fmt.Errorf("%w: it was %s and is %s", errLog, seen.Origin, c.Origin), "was a rollback accepted on the server? Then begin a new --state")
	case c.Size < seen.Size:
		return m, fmt.Errorf("%w: it has %d entries, and had %d: an old copy of the server's store was put back", errLog, c.Size, seen.Size)
	}
	tree, err := seen.tree()
	if err != nil {
		return m, err
	}
	m.seen = seen
	if err := m.walk(ctx, from, &tree); err != nil {
		return m, err
	}
	if root := tree.Root(); root != m.checkpoint.Root {
		return m, fmt.Errorf("%w: %d entries have root %s, and the checkpoint says %s", errLog, tree.Size(), root, m.checkpoint.Root)
	}
	m.seen.Origin, m.seen.Size, m.seen.Edge = m.checkpoint.Origin, tree.Size(), nil
	for _, h := range tree.Edge() {
		m.seen.Edge = append(m.seen.Edge, hex.EncodeToString(h[:]))
	}
	return m, nil
}

// tree is the tree that was seen.
func (seen seenLog) tree() (checkpoint.Tree, error) {
	var edge []checkpoint.Hash
	for _, s := range seen.Edge {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != len(checkpoint.Hash{}) {
			return checkpoint.Tree{}, fmt.Errorf("reading the monitor's state: hash %.80q", s)
		}
		edge = append(edge, checkpoint.Hash(b))
	}
	t, err := checkpoint.TreeOf(seen.Size, edge)
	if err != nil {
		return t, fmt.Errorf("reading the monitor's state: %w", err)
	}
	return t, nil
}

// walk adds the entries up to the checkpoint.
func (m *monitored) walk(ctx context.Context, from auditSource, tree *checkpoint.Tree) error {
	prev, err := hex.DecodeString(m.seen.End)
	if m.seen.Size == 0 {
		prev, err = make([]byte, 32), nil
	}
	if err != nil || len(prev) != 32 {
		return fmt.Errorf("reading the monitor's state: end %.80q", m.seen.End)
	}
	for tree.Size() < m.checkpoint.Size {
		page, err := from.Audit(ctx, tree.Size())
		if err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		if len(page.Entries) == 0 {
			return fmt.Errorf("%w: it ends at entry %d, and its checkpoint has %d", errLog, tree.Size(), m.checkpoint.Size)
		}
		for _, e := range page.Entries {
			if tree.Size() == m.checkpoint.Size {
				break
			}
			if e.Sequence != tree.Size()+1 && page.Archived != nil {
				return hint.With(fmt.Errorf("reading the audit log: entries %d to %d were archived %s", tree.Size()+1, e.Sequence-1, page.Archived.Format(time.RFC3339)),
					"give the files of `attest-server audit archive` that have them with --archive")
			}
			if e.Sequence != tree.Size()+1 {
				return hint.With(fmt.Errorf("reading the audit log: entry %d comes after entry %d", e.Sequence, tree.Size()), "a tenant's token sees its own entries alone: a monitor needs an auditor's of the operator")
			}
			sum := e.ChainHash(prev)
			if !strings.EqualFold(e.Hash, hex.EncodeToString(sum)) {
				return fmt.Errorf("%w: entry %d does not follow entry %d", errLog, e.Sequence, tree.Size())
			}
			tree.Append(sum)
			prev = sum
			m.take(e)
		}
	}
	m.seen.End = hex.EncodeToString(prev)
	return nil
}

// take notes a release.
func (m *monitored) take(e kbs.AuditEntry) {
	if e.Action == "key.release" && e.Object == m.seen.Workload {
		m.seen.Releases = append(m.seen.Releases, e.At)
	}
}

// since forgets releases before at, and says how many are left.
func (seen *seenLog) since(at time.Time) int {
	seen.Releases = slices.DeleteFunc(seen.Releases, func(x time.Time) bool { return x.Before(at) })
	return len(seen.Releases)
}
