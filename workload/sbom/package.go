package sbom

import (
	"net/url"
	"strings"
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

const (
	maxPackages     = 1 << 16
	maxPackageField = 1024
)
