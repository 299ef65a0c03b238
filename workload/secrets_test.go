package workload

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

// secretTree makes a tree: NAME/ is a directory, NAME -> TARGET a link.
func secretTree(t *testing.T, names ...string) *rootfs.Tree {
	var files []rootfstest.File
	for _, name := range names {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}
		if link, target, ok := strings.Cut(name, " -> "); ok {
			h.Name, h.Linkname, h.Typeflag = link, target, tar.TypeSymlink
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		files = append(files, rootfstest.File{Header: h})
	}
	return rootfstest.Tree(t, rootfstest.Tar(t, files))
}

// TestPlaceSecrets: a target is a link in the image, at the place that it really
// has, and never in the way of what the image has.
func TestPlaceSecrets(t *testing.T) {
	for target, want := range map[string]string{ // the path in the rule, or what the error says
		"/etc/app/db":                  "/etc/app/db",
		"/new/dir/db":                  "/new/dir/db",
		"/var/run/secrets/a/b":         "/run/secrets/a/b",
		"/run/secrets/db":              "/run/secrets/db",
		"db":                           "/run/secrets/db",
		"/conf/db":                     "/opt/db",
		"/etc/passwd":                  "the image has a regular file there",
		"/srv":                         "the image has a directory there",
		"/var":                         "made anew in each guest",
		"/conf":                        "the image has a symlink there",
		"/etc/passwd/x":                "is a regular file",
		"/out/db":                      "out of the root",
		"/loop/db":                     "levels",
		"/var/run/app/db":              "made anew in each guest",
		"/tmp/db":                      "made anew in each guest",
		"/run/secrets/../app":          "clean absolute path",
		"/run/secrets/.at/0/db":        "expected at most",
		"/proc/db":                     "made anew",
		"/etc/hosts":                   "made anew",
		"/opt/data/db":                 "volume",
		"/run/secrets":                 "made anew",
		"/" + strings.Repeat("d", 300): "clean absolute path",
	} {
		tree := secretTree(t, "run/", "opt/", "srv/", "etc/passwd", "var/run -> /run", "conf -> opt", "out -> ../x", "loop -> loop", "run/secrets/old")
		policy := krun.LaunchPolicy{}
		r, err := krun.ParseSecretRule("kbs:///a/b/c,target=" + target)
		if err == nil {
			policy.Secrets = []krun.SecretRule{{Name: "a/b/env", Env: "A"}, r}
			var warned []string
			err = placeSecrets(tree, &policy, []krun.Volume{{Name: "data", Path: "/opt/data"}}, func(s string) { warned = append(warned, s) })
			if err == nil && len(warned) != 1 {
				t.Errorf("%s: warnings %q", target, warned)
			}
		}
		if err != nil {
			if !strings.Contains(err.Error(), want) || strings.HasPrefix(want, "/") {
				t.Errorf("%s: %v, expected %s", target, err, want)
			}
			continue
		}
		got := policy.Secrets[1]
		n := tree.Lookup(got.Path)
		if got.Path != want || (n == nil) != strings.HasPrefix(want, krun.SecretsDir) || n != nil && n.Target() != got.Link(1) {
			t.Errorf("%s: %+v, %+v, expected %s", target, got, n, want)
		}
	}
}

// TestSecretsDirElsewhere: an image must not move the mount of its secrets.
func TestSecretsDirElsewhere(t *testing.T) {
	for _, entry := range []string{"run -> /x", "run/secrets -> /x", "run/secrets", "run"} {
		tree := secretTree(t, "x/", entry)
		policy := krun.LaunchPolicy{Secrets: []krun.SecretRule{{Name: "a/b/c", Path: "/etc/db"}}}
		if err := placeSecrets(tree, &policy, nil, func(string) {}); err == nil || !strings.Contains(err.Error(), "expected a directory") {
			t.Errorf("%s: %v", entry, err)
		}
	}
}
