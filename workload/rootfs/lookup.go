package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/ccrun/ccrun/bounded"
)

// Follow looks p up as a process would whose root the tree is: links on the
// way and at the end are followed. Nil if there is nothing.
func (t *Tree) Follow(p string) *Node {
	m := &merger{tree: t, limits: Limits{}.withDefaults()}
	for range maxSymlinkHops {
		dirName, base := path.Split(p)
		if base == "" || base == "." || base == ".." {
			dirName, base = p, ""
		}
		dir, err := m.existing(dirName)
		if err != nil || base == "" {
			return dir
		}
		n := dir.child(base).Node
		if n == nil || n.Kind != Symlink {
			return n
		}
		if p = n.Target(); !strings.HasPrefix(p, "/") {
			p = dirName + p
		}
	}
	return nil
}

// ReadFile reads one regular file of at most limit bytes, following links; nil
// if there is none. open opens a layer's tar stream: of one that can seek only
// headers are read up to the file. So nobody has verified what it returns, which
// is good for an early word on the image, and not for anything that is written.
func (t *Tree) ReadFile(ctx context.Context, p string, limit int64, open func(layer int) (io.ReadCloser, error)) ([]byte, error) {
	n := t.Follow(p)
	switch {
	case n == nil:
		return nil, nil
	case n.Kind != Regular || n.Size > limit:
		return nil, fmt.Errorf("%s: expected a regular file of at most %d bytes, got a %s of %d", p, limit, n.Kind, n.Size)
	case n.layer == generatedLayer:
		return n.extra.content, nil
	}
	r, err := open(int(n.layer))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	s := newSource(ctx, r, t.layerBytes)
	for range n.ordinal {
		if _, err := s.next(); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	if _, err := s.next(); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return bounded.Read(s.tr, p, limit)
}

// MakeDir makes a directory at p, following links inside the tree, with owner
// and mode for it and root's for the parents that are missing too. What there
// is at p, of any kind, stays as it is.
func (t *Tree) MakeDir(p string, mode, uid, gid uint32) error {
	clean, err := cleanPath(p, Limits{}.withDefaults())
	if err != nil {
		return fmt.Errorf("making directory %q: %w", p, err)
	}
	if t.Follow(clean) != nil {
		return nil
	}
	m := &merger{tree: t, limits: Limits{}.withDefaults()}
	dir := t.root
	for at, names := "", clean[1:]; names != ""; {
		var name string
		name, names, _ = strings.Cut(names, "/")
		at += "/" + name
		next, err := m.existing(at)
		if errors.Is(err, fs.ErrNotExist) && dir.child(name).Node == nil {
			next, err = &Node{Kind: Directory, Perm: impliedPerm, layer: generatedLayer, ordinal: noLayer}, nil
			dir.set(name, next, generatedLayer)
		}
		if err != nil {
			return fmt.Errorf("making directory %q: %w", p, err)
		}
		dir = next
	}
	dir.Perm, dir.UID, dir.GID = uint16(mode&0o7777), uid, gid
	return nil
}
