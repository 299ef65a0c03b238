package rootfs

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

const stepsPerEntry = 100 // on average

// merger merges layers into a tree, one after the other.
type merger struct {
	tree    *Tree
	limits  Limits
	arena   arena
	layer   int32
	entries int   // headers, and directories implied so far
	implied int64 // bytes of their names
	steps   int64
}

// parent resolves a directory path for writing into it: links are followed
// inside the tree, what is missing is made.
func (m *merger) parent(p string) (*Node, error) { return m.resolve(p, true) }

// existing resolves a directory path that must be there.
func (m *merger) existing(p string) (*Node, error) { return m.resolve(p, false) }

func (m *merger) resolve(p string, mk bool) (*Node, error) {
	stack := []*Node{m.tree.root}
	hops := 0
	for rest := p; rest != ""; {
		var comp string
		comp, rest, _ = strings.Cut(rest, "/")
		switch comp {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		// Bounds the time that links through links through links can take.
		if m.steps++; m.steps > stepsPerEntry*int64(m.limits.Entries) {
			return nil, exceeded("names looked up", stepsPerEntry*int64(m.limits.Entries), m.steps)
		}
		next, err := m.step(stack[len(stack)-1], comp, mk)
		if err != nil {
			return nil, err
		}
		if next.Kind == Directory {
			if stack = append(stack, next); len(stack) > m.limits.Depth {
				return nil, exceeded("directory depth", m.limits.Depth, len(stack))
			}
			continue
		}
		if hops++; hops > maxSymlinkHops {
			return nil, fmt.Errorf("resolving parent directory: %w", syscall.ELOOP)
		}
		target := next.Target()
		if strings.HasPrefix(target, "/") {
			stack = stack[:1]
		}
		rest = target + "/" + rest
	}
	return stack[len(stack)-1], nil
}

// step goes one name down and returns a directory or a symlink.
func (m *merger) step(dir *Node, comp string, mk bool) (*Node, error) {
	e := dir.child(comp)
	switch {
	case e.Node != nil && (e.Node.Kind == Directory || e.Node.Kind == Symlink):
		return e.Node, nil
	case e.Node != nil && (!mk || e.layer == m.layer):
		return nil, fmt.Errorf("parent %q is a %s: %w", shorten(comp), e.Node.Kind, syscall.ENOTDIR)
	case !mk:
		return nil, fmt.Errorf("directory %q: %w", shorten(comp), fs.ErrNotExist)
	case len(comp) > maxNameBytes:
		return nil, exceeded("bytes of one name", maxNameBytes, len(comp))
	}
	if m.entries++; m.entries > m.limits.Entries {
		return nil, exceeded("entries and implied directories", m.limits.Entries, m.entries)
	}
	if m.implied += int64(len(comp)); m.implied > m.limits.MetaBytes {
		return nil, exceeded("bytes of implied directories' names", m.limits.MetaBytes, m.implied)
	}
	n := m.arena.node(Node{Kind: Directory, Perm: impliedPerm, layer: m.layer, ordinal: noLayer})
	dir.set(m.arena.name(comp), n, m.layer)
	return n, nil
}
