package tests

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackages packs the programs twice, expects the same bytes, and installs,
// upgrades, removes and purges the packages in clean roots of Debian 12 and,
// with Podman, 13.
func TestPackages(t *testing.T) {
	endToEnd(t)
	if os.Getenv("CCRUN_INSIDE") != "" {
		t.Skip("TestPackages runs outside of another suite's root")
	}
	dir := t.TempDir()
	first, again, older := filepath.Join(dir, "first"), filepath.Join(dir, "again"), filepath.Join(dir, "older")
	release(t, first)
	release(t, again)
	asOlder(t, first, older)
	sums := readFile(t, filepath.Join(first, "SHA256SUMS"))
	if !bytes.Equal(sums, readFile(t, filepath.Join(again, "SHA256SUMS"))) || bytes.Count(sums, []byte("\n")) != 12 {
		t.Errorf("packing the same programs twice gave other bytes, or not 8 packages and 4 bills of materials:\n%s", sums)
	}
	checkRPMs(t, first)
	t.Run("Ansible", func(t *testing.T) { checkRole(t, first) })
	for _, root := range []struct{ link, podman string }{{"root-clean", "no"}, {"root", "yes"}} {
		checkInRoot(t, root.link, older, first, root.podman)
	}
}

// release runs packaging/release.sh and checks what it wrote against the sums
// and the signature.
func release(t *testing.T, dist string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("making a key: %v: %s", err, out)
	}
	cmd := exec.Command("../packaging/release.sh", binDir(t), dist)
	cmd.Env = append(os.Environ(), "RELEASE_KEY="+key)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packing: %v\n%s", err, out)
	}
	check := exec.Command("sha256sum", "--quiet", "-c", "SHA256SUMS")
	check.Dir = dist
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("checking the sums: %v: %s", err, out)
	}
	signed := exec.Command("ssh-keygen", "-Y", "check-novalidate", "-n", "ccrun-release", "-s", filepath.Join(dist, "SHA256SUMS.sig"))
	signed.Stdin = bytes.NewReader(readFile(t, filepath.Join(dist, "SHA256SUMS")))
	if out, err := signed.CombinedOutput(); err != nil {
		t.Errorf("checking the signature: %v: %s", err, out)
	}
}

// asOlder makes of the .deb packages in dist those of a version before.
func asOlder(t *testing.T, dist, older string) {
	t.Helper()
	cmd := exec.Command("bash", "-euc", `mkdir -p "$2"
for deb in "$1"/*.deb; do
	name=$(basename "$deb") && tree="$2/${name%%_*}"
	dpkg-deb -R "$deb" "$tree"
	sed -i "s/$(dpkg-deb -f "$deb" Version)/0.0.0~1/" "$tree/DEBIAN/control" # also where one depends on another
	dpkg-deb -Znone -b "$tree" "$2/${name%%_*}_0.0.0~1_amd64.deb"
	rm -r "$tree"
done`, "asOlder", dist, older)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packing the version before: %v\n%s", err, out)
	}
}

// checkRPMs reads, installs, verifies and erases the .rpm packages with rpm
// itself, in an empty root: without what they depend on, and without their
// scripts, for which there is no shell.
func checkRPMs(t *testing.T, dist string) {
	t.Helper()
	var files, names []string
	for name, want := range map[string]string{
		"ccrun": "/usr/libexec/ccrun/ccrun-init", "ccrun-edge": "/etc/containers/containers.conf.d/ccrun.conf",
		"attest-server": "/usr/lib/systemd/system/attest-server.socket", "ccrun-sim": "/usr/libexec/ccrun/krun-sim",
	} {
		found, err := filepath.Glob(filepath.Join(dist, name+"-0*.rpm"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: packages %v: %v", name, found, err)
		}
		out, err := exec.Command("rpm", "-qpl", "--nosignature", found[0]).Output()
		if err != nil || !strings.Contains(string(out), want+"\n") {
			t.Errorf("%s: %v: no %s in\n%s", name, err, want, out)
		}
		files, names = append(files, found[0]), append(names, name)
	}
	root := t.TempDir()
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("rpm %.60q: %v: %s", args, err, out)
		}
		return string(out)
	}
	rpm(append([]string{"-i", "--nodeps", "--noscripts", "--nosignature"}, files...)...)
	rpm(append([]string{"-V", "--nodeps"}, names...)...)
	for path, mode := range map[string]os.FileMode{"usr/bin/ccrun": 0o755, "usr/bin/attest-server": 0o755, "usr/libexec/ccrun/ccrun-init": 0o755, "etc/containers/containers.conf.d/ccrun.conf": 0o644} {
		if info, err := os.Lstat(filepath.Join(root, path)); err != nil || info.Mode() != mode {
			t.Errorf("installed from .rpm: %s: %v, %v", path, info, err)
		}
	}
	rpm(append([]string{"-e", "--nodeps", "--noscripts"}, names...)...)
	for _, dir := range []string{"usr", "etc"} {
		_ = filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.Contains(path, "/rpm/") {
				t.Errorf("the .rpm packages left %s behind", path)
			}
			return nil
		})
	}
}

func checkInRoot(t *testing.T, link, older, newer, podman string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(filepath.Join(os.Getenv("CCRUN_RIG"), link))
	if err != nil {
		t.Fatalf("the rig has no %s (`make rig`): %v", link, err)
	}
	script, err := filepath.Abs("packages/inside.sh")
	if err != nil {
		t.Fatal(err)
	}
	mount := t.TempDir()
	cmd := exec.Command("rig/inside.sh", root, mount, strings.Join([]string{filepath.Dir(script), older, newer}, ":"), script, older, newer, podman)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONTAINERS_CONF") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("installed, upgraded, removed, purged")) {
		t.Errorf("in %s: %v\n%s", link, err, out)
	}
}

// checkRole applies the example's role to a root like this machine's own, of which
// nothing stays.
func checkRole(t *testing.T, dist string) {
	_, err := exec.LookPath("ansible-playbook")
	need(t, err)
	example, err := filepath.Abs("../examples/ansible")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("packages/ansible.sh")
	if err != nil {
		t.Fatal(err)
	}
	bin := binDir(t)
	cmd := exec.Command("rig/inside.sh", "/", t.TempDir(), strings.Join([]string{filepath.Dir(script), example, dist, bin}, ":"), script, example, dist, bin)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "CONTAINERS_CONF") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("applied twice, changed once")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
