// Package sbom lists the packages in an image's file system: what the databases
// of dpkg, apk and rpm say, what pip and npm leave beside what they install, and
// the modules that Go programs name.
package sbom

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// inventory lists the packages of a tree.
type inventory struct {
	dir      string // for scratch files
	found    map[*rootfs.Node]finding
	list     []softwarePackage
	distro   string
	warnings []string
	unread   int // manifests that make no sense
}

// finding is a file that lists packages. Without one of a distribution's
// lists the SBOM would be wrong; a manifest that cannot be read is counted.
type finding struct {
	parse    func(io.Reader) ([]softwarePackage, error)
	limit    int64
	manifest bool
}

// List writes the SBOM of what is in the tree: by the databases of
// dpkg, apk and rpm, by what pip and npm leave beside what they install, and
// by the modules that Go programs name. Anything else it does not know. An
// empty source is not named in it.
func List(ctx context.Context, tree *rootfs.Tree, dir string, source digest.Digest, now time.Time) ([]byte, []string, error) {
	v := &inventory{dir: dir, found: map[*rootfs.Node]finding{}}
	v.lists(tree)
	tree.Walk(func(p string, n *rootfs.Node) bool {
		v.manifests(p, n)
		return true
	})
	if len(v.found) > 0 {
		if err := tree.Contents(ctx, v.visit); err != nil {
			return nil, nil, fmt.Errorf("listing packages: %w", err)
		}
	}
	if v.unread > 0 {
		v.warnings = append(v.warnings, fmt.Sprintf("SBOM lacks what %d unreadable package manifests say", v.unread))
	}
	b, err := spdx(v.list, v.distro, source, now)
	return b, v.warnings, err
}

// random is a parser that reads in any order, from a scratch file.
func (v *inventory) random(parse func(string, io.Reader) ([]softwarePackage, error)) func(io.Reader) ([]softwarePackage, error) {
	return func(r io.Reader) ([]softwarePackage, error) { return parse(v.dir, r) }
}

// lists finds what has its fixed place.
func (v *inventory) lists(tree *rootfs.Tree) {
	add := func(p string, limit int64, parse func(io.Reader) ([]softwarePackage, error)) {
		if n := tree.Lookup(p); n != nil && n.Kind == rootfs.Regular {
			v.found[n] = finding{parse: parse, limit: limit}
		}
	}
	add("/var/lib/dpkg/status", maxPackageDB, parseDpkg)
	add("/lib/apk/db/installed", maxPackageDB, parseAPK)
	add("/usr/lib/apk/db/installed", maxPackageDB, parseAPK)
	if d := tree.Lookup("/var/lib/dpkg/status.d"); d != nil && d.Kind == rootfs.Directory { // distroless
		for _, e := range d.Children() {
			if !strings.HasSuffix(e.Name, ".md5sums") {
				add(path.Join("/var/lib/dpkg/status.d", e.Name), maxPackageDB, parseDpkg)
			}
		}
	}
	for _, p := range []string{"/usr/lib/os-release", "/etc/os-release"} {
		add(p, maxManifest, func(r io.Reader) ([]softwarePackage, error) {
			id, err := parseOSRelease(r)
			if id != "" {
				v.distro = id
			}
			return nil, err
		})
	}
	for _, dir := range []string{"/var/lib/rpm", "/usr/lib/sysimage/rpm"} {
		for _, name := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
			add(path.Join(dir, name), maxRPMDB, v.random(parseRPM))
		}
		if wal := tree.Lookup(path.Join(dir, "rpmdb.sqlite-wal")); wal != nil && wal.Size > 0 {
			v.warnings = append(v.warnings, "SBOM may lack packages: rpm's database has a write-ahead log, which is not read")
		}
	}
}

// manifests finds what can be anywhere.
func (v *inventory) manifests(p string, n *rootfs.Node) {
	if _, ok := v.found[n]; ok || n.Kind != rootfs.Regular || n.Size == 0 {
		return
	}
	dir, base := path.Split(p)
	dir = path.Clean(dir)
	parent := path.Base(path.Dir(dir))
	switch {
	case base == "METADATA" && strings.HasSuffix(dir, ".dist-info"), base == "PKG-INFO" && strings.HasSuffix(dir, ".egg-info"):
		v.found[n] = finding{parsePython, maxManifest, true}
	case base == "package.json" && (parent == "node_modules" || strings.HasPrefix(parent, "@") && path.Base(path.Dir(path.Dir(dir))) == "node_modules"):
		v.found[n] = finding{parseNPM, maxManifest, true}
	case n.Perm&0o111 != 0 && n.Size > 64<<10 && n.Size <= maxRPMDB: // no Go program is smaller
		v.found[n] = finding{v.random(parseGo), maxRPMDB, false}
	}
}

// visit is for rootfs.Tree.Contents.
func (v *inventory) visit(n *rootfs.Node, r io.Reader) error {
	f, ok := v.found[n]
	if !ok {
		return nil
	}
	if n.Size > f.limit {
		if f.manifest {
			v.unread++
			return nil
		}
		return fmt.Errorf("package list of %d bytes, at most %d allowed", n.Size, f.limit)
	}
	in := &keptError{r: r}
	ps, err := f.parse(in)
	switch {
	case in.err != nil:
		return in.err // of the source, not of what is in it
	case err != nil && f.manifest:
		v.unread++
	case err != nil:
		return err
	}
	if v.list = append(v.list, ps...); len(v.list) > maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	return nil
}

// keptError keeps the error that reading ended with.
type keptError struct {
	r   io.Reader
	err error
}

func (k *keptError) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && err != io.EOF {
		k.err = err
	}
	return n, err
}

const (
	maxPackageDB = 64 << 20
	maxRPMDB     = 1 << 30 // with all its indexes' free space
	maxManifest  = 1 << 20
)
