package rootfs

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
)

// ErrOutOfRoot reports a link that leads above the root.
var ErrOutOfRoot = errors.New("a link on the way leads out of the root")

// RealPath is the absolute path p with the links on the way to its last name
// followed. What is missing there is taken as it is named. A link that climbs
// above the root, which a process inside would find at the root, is refused:
// whoever made it meant something else.
func (t *Tree) RealPath(p string) (string, error) {
	clean, err := cleanPath(p, Limits{}.withDefaults())
	if err != nil {
		return "", err
	}
	dir, base := path.Split(clean)
	w := walker{root: t.root}
	hops := 0
	for rest := dir; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		target, err := w.step(name)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", p, err)
		case target == "":
			continue
		}
		if hops++; hops > maxSymlinkHops {
			return "", fmt.Errorf("%s: %w", p, syscall.ELOOP)
		}
		if path.IsAbs(target) {
			w.names, w.nodes = nil, nil
		}
		rest = target + "/" + rest
	}
	return "/" + path.Join(append(w.names, base)...), nil
}

// walker is a place in the tree, or below it.
type walker struct {
	root  *Node
	names []string
	nodes []*Node // nil from where nothing is there
}

func (w *walker) at() *Node {
	if len(w.nodes) == 0 {
		return w.root
	}
	return w.nodes[len(w.nodes)-1]
}

// step goes one name down, or returns the target of the link that is there.
func (w *walker) step(name string) (target string, err error) {
	switch name {
	case "", ".":
		return "", nil
	case "..":
		if len(w.names) == 0 {
			return "", ErrOutOfRoot
		}
		w.names, w.nodes = w.names[:len(w.names)-1], w.nodes[:len(w.nodes)-1]
		return "", nil
	}
	var next *Node
	if dir := w.at(); dir != nil {
		next = dir.child(name).Node
	}
	switch {
	case next != nil && next.Kind == Symlink:
		return next.Target(), nil
	case next != nil && next.Kind != Directory:
		return "", fmt.Errorf("%q is a %s: %w", shorten(name), next.Kind, syscall.ENOTDIR)
	}
	w.names, w.nodes = append(w.names, name), append(w.nodes, next)
	return "", nil
}

// AddLink puts a symbolic link into the tree, root's. Directories on the way that
// are missing are made. What has the name already is not replaced.
func (t *Tree) AddLink(p, target string) error {
	if err := t.MakeDir(path.Dir(p), impliedPerm, 0, 0); err != nil {
		return err
	}
	dir, base, err := t.plainParent(p)
	if err != nil {
		return fmt.Errorf("adding link %q: %w", p, err)
	}
	if old := dir.child(base).Node; old != nil {
		return fmt.Errorf("adding link %q: a %s is there", p, old.Kind)
	}
	n := &Node{Kind: Symlink, Perm: 0o777, layer: generatedLayer, ordinal: noLayer}
	n.more().target = target
	dir.set(base, n, generatedLayer)
	return nil
}
