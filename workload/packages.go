package workload

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rpmdb"
	"github.com/ccrun/ccrun/workload/scratch"
)

// Bounds of what is read of a source to list its packages.
const (
	maxPackages     = 1 << 16
	maxPackageDB    = 64 << 20
	maxRPMDB        = 1 << 30 // with all its indexes' free space
	maxManifest     = 1 << 20
	maxPackageField = 1024
)

// softwarePackage is one installed package.
type softwarePackage struct {
	kind, namespace, name, version, arch, epoch string
}

// purl is its package URL (github.com/package-url/purl-spec). The packages of
// a distribution have its name for a namespace.
func (p softwarePackage) purl(distro string) string {
	if p.kind == "deb" || p.kind == "apk" || p.kind == "rpm" {
		p.namespace = distro
	}
	s := "pkg:" + p.kind + "/"
	for _, part := range strings.Split(p.namespace, "/") {
		if part != "" {
			s += escapePURL(part) + "/"
		}
	}
	if s += escapePURL(p.name); p.version != "" {
		s += "@" + escapePURL(p.version)
	}
	query := url.Values{}
	for k, v := range map[string]string{"arch": p.arch, "epoch": p.epoch} {
		if v != "" {
			query.Set(k, v)
		}
	}
	if len(query) > 0 {
		s += "?" + query.Encode()
	}
	return s
}

func escapePURL(s string) string { return strings.ReplaceAll(url.PathEscape(s), "@", "%40") }

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

// listPackages writes the SBOM of what is in the tree: by the databases of
// dpkg, apk and rpm, by what pip and npm leave beside what they install, and
// by the modules that Go programs name. Anything else it does not know.
func listPackages(ctx context.Context, tree *rootfs.Tree, dir string, source digest.Digest, now time.Time) ([]byte, []string, error) {
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
			add(path.Join(dir, name), maxRPMDB, v.parseRPM)
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
		v.found[n] = finding{v.parseGo, maxRPMDB, false}
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

// scratch copies r to where it can be read in any order.
func (v *inventory) scratch(r io.Reader, use func(io.ReaderAt, int64) error) error {
	s, err := scratch.NewSpool(v.dir)
	if err != nil {
		return err
	}
	defer s.Close()
	w := s.Writer()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return use(s, s.SizeBytes())
}

func (v *inventory) parseRPM(r io.Reader) (list []softwarePackage, err error) {
	err = v.scratch(r, func(at io.ReaderAt, size int64) error {
		return rpmdb.Read(at, size, func(p rpmdb.Package) error {
			s := softwarePackage{kind: "rpm", name: p.Name, version: p.Version + "-" + p.Release, arch: p.Arch}
			if p.HasEpoch {
				s.epoch = strconv.FormatUint(uint64(p.Epoch), 10)
			}
			if list = append(list, s); len(list) > maxPackages {
				return fmt.Errorf("more than %d packages", maxPackages)
			}
			return nil
		})
	})
	if err != nil {
		return nil, hint.With(fmt.Errorf("reading rpm's database: %w", err), "mend the image, or build without `--attach sbom`")
	}
	return list, nil
}

// parseGo lists the modules in a Go program. Other files have none; an error
// is about scratch space.
func (v *inventory) parseGo(r io.Reader) (list []softwarePackage, err error) {
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil || string(magic[:]) != "\x7fELF" {
		return nil, nil
	}
	var info *buildinfo.BuildInfo
	err = v.scratch(io.MultiReader(bytes.NewReader(magic[:]), r), func(at io.ReaderAt, _ int64) (err error) {
		defer func() { // debug/elf does not promise to bear files made to break it
			if p := recover(); p != nil {
				err = errors.New("malformed ELF file")
			}
		}()
		if info, err = buildinfo.Read(at); err != nil {
			info = nil
		}
		return nil
	})
	if err != nil || info == nil {
		return nil, err
	}
	add := func(module, version string) {
		if version == "(devel)" {
			version = ""
		}
		dir, name := path.Split(module)
		if name != "" && len(module) <= maxPackageField && len(version) <= maxPackageField {
			list = append(list, softwarePackage{kind: "golang", namespace: dir, name: name, version: version})
		}
	}
	add("stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	add(info.Main.Path, info.Main.Version)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		add(d.Path, d.Version)
	}
	return list, nil
}
