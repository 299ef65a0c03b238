package workload

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/rootfs"
)

const (
	spdxVersion     = "SPDX-2.3"
	maxPackages     = 1 << 16
	maxPackageDB    = 64 << 20
	maxPackageField = 1024
)

// spdxDocument is what we write of SPDX 2.3 (ISO/IEC 5962 and successor), in
// its JSON form.
type spdxDocument struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      spdxCreation   `json:"creationInfo"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []spdxRelation `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string         `json:"SPDXID"`
	Name             string         `json:"name"`
	VersionInfo      string         `json:"versionInfo,omitempty"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	LicenseConcluded string         `json:"licenseConcluded"`
	LicenseDeclared  string         `json:"licenseDeclared"`
	CopyrightText    string         `json:"copyrightText"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
	ExternalRefs     []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// osPackage is one installed package.
type osPackage struct{ kind, name, version, arch string }

// purl is its package URL.
func (p osPackage) purl(distro string) string {
	s := "pkg:" + p.kind + "/"
	if distro != "" {
		s += url.PathEscape(distro) + "/"
	}
	s += url.PathEscape(p.name) + "@" + url.PathEscape(p.version)
	if p.arch != "" {
		s += "?arch=" + url.QueryEscape(p.arch)
	}
	return s
}

// listPackages writes the SBOM of what is in the tree, by the databases of
// dpkg and apk. What no database lists, it does not know.
func listPackages(ctx context.Context, tree *rootfs.Tree, source digest.Digest, now time.Time) ([]byte, []string, error) {
	found := map[*rootfs.Node]func(io.Reader) ([]osPackage, error){}
	add := func(p string, parse func(io.Reader) ([]osPackage, error)) {
		if n := tree.Lookup(p); n != nil && n.Kind == rootfs.Regular {
			found[n] = parse
		}
	}
	add("/var/lib/dpkg/status", parseDpkg)
	add("/lib/apk/db/installed", parseAPK)
	add("/usr/lib/apk/db/installed", parseAPK)
	if d := tree.Lookup("/var/lib/dpkg/status.d"); d != nil && d.Kind == rootfs.Directory { // distroless
		for _, e := range d.Children() {
			if !strings.HasSuffix(e.Name, ".md5sums") {
				add(path.Join("/var/lib/dpkg/status.d", e.Name), parseDpkg)
			}
		}
	}
	distro := ""
	for _, p := range []string{"/usr/lib/os-release", "/etc/os-release"} {
		add(p, func(r io.Reader) ([]osPackage, error) {
			var err error
			distro, err = parseOSRelease(r)
			return nil, err
		})
	}
	var warnings []string
	for _, p := range []string{"/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/Packages", "/var/lib/rpm/Packages.db"} {
		if tree.Lookup(p) != nil {
			warnings = append(warnings, "SBOM lacks the packages of "+p+": this version does not read rpm's database")
		}
	}
	var list []osPackage
	if len(found) > 0 {
		err := tree.Contents(ctx, func(n *rootfs.Node, r io.Reader) error {
			parse := found[n]
			if parse == nil {
				return nil
			}
			if n.Size > maxPackageDB {
				return fmt.Errorf("package database of %d bytes, at most %d allowed", n.Size, maxPackageDB)
			}
			ps, err := parse(r)
			if list = append(list, ps...); len(list) > maxPackages {
				err = fmt.Errorf("more than %d packages", maxPackages)
			}
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("listing packages: %w", err)
		}
	}
	b, err := spdx(list, distro, source, now)
	return b, warnings, err
}

func spdx(list []osPackage, distro string, source digest.Digest, now time.Time) ([]byte, error) {
	slices.SortFunc(list, func(a, b osPackage) int { return strings.Compare(a.purl(distro), b.purl(distro)) })
	list = slices.Compact(list)
	const none, root = "NOASSERTION", "SPDXRef-image"
	d := spdxDocument{
		SPDXVersion: spdxVersion, DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: "image " + source.String(),
		DocumentNamespace: "https://github.com/ccrun/ccrun/spdx/" + source.Encoded(),
		CreationInfo:      spdxCreation{now.UTC().Format(time.RFC3339), []string{"Tool: ccrun"}},
		Packages: []spdxPackage{{SPDXID: root, Name: "source image", DownloadLocation: none, LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none,
			Checksums: []spdxChecksum{{"SHA256", source.Encoded()}}}},
		Relationships: []spdxRelation{{"SPDXRef-DOCUMENT", "DESCRIBES", root}},
	}
	for i, p := range list {
		id := fmt.Sprintf("SPDXRef-package-%d", i+1)
		d.Packages = append(d.Packages, spdxPackage{
			SPDXID: id, Name: p.name, VersionInfo: p.version, DownloadLocation: none, LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none,
			ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", p.purl(distro)}},
		})
		d.Relationships = append(d.Relationships, spdxRelation{root, "CONTAINS", id})
	}
	return json.Marshal(d)
}

// parseDpkg reads deb822 paragraphs; packages that are not installed are left
// out. A status.d file has no Status.
func parseDpkg(r io.Reader) ([]osPackage, error) {
	var list []osPackage
	err := paragraphs(r, ": ", func(f map[string]string) {
		if s, ok := f["Status"]; f["Package"] != "" && (!ok || strings.HasSuffix(s, " installed")) {
			list = append(list, osPackage{"deb", f["Package"], f["Version"], f["Architecture"]})
		}
	})
	return list, err
}

// parseAPK reads apk's database: P:, V: and A: lines.
func parseAPK(r io.Reader) ([]osPackage, error) {
	var list []osPackage
	err := paragraphs(r, ":", func(f map[string]string) {
		if f["P"] != "" {
			list = append(list, osPackage{"apk", f["P"], f["V"], f["A"]})
		}
	})
	return list, err
}

// paragraphs calls add for each group of lines between empty ones. Only the
// first line of a field is kept, and of a field that is repeated the first.
func paragraphs(r io.Reader, separator string, add func(map[string]string)) error {
	b := bufio.NewReaderSize(r, 64<<10)
	fields, n := map[string]string{}, 0
	for {
		line, err := b.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // a long line: its start is enough
			_, err = b.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return err
		}
		end := err == io.EOF
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 && len(fields) > 0 {
			add(fields)
			fields = map[string]string{}
			if n++; n > maxPackages {
				return fmt.Errorf("more than %d packages", maxPackages)
			}
		}
		if name, value, ok := strings.Cut(string(line), separator); ok && line[0] != ' ' && line[0] != '\t' && len(fields) < 256 {
			if _, dup := fields[name]; !dup && len(name) <= maxPackageField {
				fields[name] = value[:min(len(value), maxPackageField)]
			}
		}
		if end {
			if len(fields) > 0 {
				add(fields)
			}
			return nil
		}
	}
}

// parseOSRelease returns ID.
func parseOSRelease(r io.Reader) (id string, err error) {
	err = paragraphs(r, "=", func(f map[string]string) {
		if v := strings.Trim(f["ID"], `"'`); v != "" && id == "" {
			id = v
		}
	})
	return id, err
}
