package workload

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/identity"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/source"
)

// maxFindings of one kind are named; the rest is counted.
const maxFindings = 5

// secretName matches names of variables that usually hold secrets, and
// secretValue values that are ones.
var (
	secretName  = regexp.MustCompile(`(?i)(passw(or)?d|passphrase|secret|token|api_?key|access_?key|private_?key|credential)`)
	secretValue = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----|^(AKIA|ASIA)[A-Z0-9]{16}$|^gh[pousr]_[A-Za-z0-9]{36}|://[^/:@]+:[^/@]+@`)
	fileOrOff   = regexp.MustCompile(`^(/.*|true|false|yes|no|0|1|)$`)
)

// review is what a build does with the merged source before it writes: it
// keeps to the allow-list of bases, and lints.
func review(ctx context.Context, env *Environment, src *source.Image, tree *rootfs.Tree, o *SourceOptions) error {
	if err := checkBase(ctx, env, src, o.AllowedBases); err != nil {
		return err
	}
	if o.Lint == LintOff {
		return nil
	}
	findings := lint(o.Source, src.Config.Config, tree)
	for _, f := range findings {
		env.Warn("lint: " + f)
	}
	if o.Lint == LintError && len(findings) > 0 {
		return hint.With(fmt.Errorf("lint of %s: %d findings, the first: %s", src.Name, len(findings), findings[0]), "mend the image, or build with --lint=warn")
	}
	return nil
}

// lint says what an owner may want to know before the image is sealed. Values
// of variables are never in it.
func lint(name string, c imgspec.ImageConfig, tree *rootfs.Tree) []string {
	var out []string
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		if secretValue.MatchString(value) || secretName.MatchString(name) && !fileOrOff.MatchString(value) {
			out = append(out, fmt.Sprintf("variable %s looks like a secret: whoever has the source image has it; release it with `ccrun resource` instead", name))
		}
	}
	if user, _, _ := strings.Cut(c.User, ":"); user == "" || user == "0" || user == "root" {
		out = append(out, "the workload runs as root: set USER in the image")
	}
	if tagOf(name) == "latest" {
		out = append(out, "source is named by the tag latest: name a version, or better a digest")
	}
	return append(out, lintFiles(tree)...)
}

// tagOf is the tag of a registry name, "latest" if it has neither tag nor
// digest, and empty for what is not in a registry.
func tagOf(name string) string {
	rest, ok := strings.CutPrefix(name, "docker://")
	if !ok || strings.Contains(rest, "@") {
		return ""
	}
	rest = rest[strings.LastIndexByte(rest, '/')+1:]
	if _, tag, ok := strings.Cut(rest, ":"); ok {
		return tag
	}
	return "latest"
}

func lintFiles(tree *rootfs.Tree) []string {
	kinds := []struct {
		what string
		is   func(*rootfs.Node) bool
		hits []string
	}{
		{what: "world-writable files", is: func(n *rootfs.Node) bool { return n.Kind == rootfs.Regular && n.Perm&0o002 != 0 }},
		{what: "world-writable directories without the sticky bit", is: func(n *rootfs.Node) bool { return n.Kind == rootfs.Directory && n.Perm&0o1002 == 0o002 }},
		{what: "setuid or setgid files", is: func(n *rootfs.Node) bool { return n.Kind == rootfs.Regular && n.Perm&0o6000 != 0 && n.Perm&0o111 != 0 }},
		{what: "files with capabilities", is: func(n *rootfs.Node) bool {
			return slices.ContainsFunc(n.Xattrs(), func(x rootfs.Xattr) bool { return x.Name == "security.capability" })
		}},
	}
	tree.Walk(func(p string, n *rootfs.Node) bool {
		for i := range kinds {
			if kinds[i].is(n) {
				kinds[i].hits = append(kinds[i].hits, p)
			}
		}
		return true
	})
	var out []string
	for _, k := range kinds {
		if len(k.hits) == 0 {
			continue
		}
		text := strings.Join(k.hits[:min(len(k.hits), maxFindings)], " ")
		if more := len(k.hits) - maxFindings; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, fmt.Sprintf("%s: %q", k.what, text))
	}
	return out
}

// checkBase makes sure that the source starts with the layers of an allowed
// base. Layers are compared, by their digests: what an image's labels say of
// its base, anyone can write.
func checkBase(ctx context.Context, env *Environment, src *source.Image, allowed []string) error {
	if len(allowed) == 0 {
		return nil
	}
	have := src.Config.RootFS.DiffIDs
	for _, name := range allowed {
		base, err := source.Open(ctx, name, source.Options{System: env.System})
		if err != nil {
			return fmt.Errorf("reading allowed base: %w", err)
		}
		want := base.Config.RootFS.DiffIDs
		if err := base.Close(); err != nil {
			return err
		}
		n := len(want)
		if n > 0 && n <= len(have) && identity.ChainID(slices.Clone(want)) == identity.ChainID(slices.Clone(have[:n])) {
			return nil
		}
	}
	return hint.With(fmt.Errorf("%s is built on none of the %d allowed bases", src.Name, len(allowed)), "rebuild it on one of them, as it is now, or change --base-allow")
}
