package tests

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRootless: a user's Podman, whose runtime is root of a user namespace only,
// gives a container its scratch area and the user's volume file, and what was
// written is there at the next start. The user is nobody, who has no other ids to
// map.
func TestRootless(t *testing.T) {
	w := newWorld(t)
	if os.Getuid() != 0 {
		t.Skip("becomes another user: needs root")
	}
	setpriv := systemTool(t, "setpriv")
	src, home := filepath.Join(w.dir, "src/rootless"), nobodysHome(t)
	writeOCI(t, src, shell(`for f in /kept /data/kept; do cat $f 2>/dev/null || echo fresh; echo kept >$f; done; sync`), busyboxLayer(t))
	w.must("ccrun", "build", "-q", "--tee", "sample", "--firmware", w.firmware, "--attest-url", w.url, "--attest-ca", filepath.Join(w.dir, "server/ca.pem"),
		"--workload-id", "rootless", "--scratch", "192MiB", "--volume", "data:/data,size=128m", "oci:"+src, "oci:"+filepath.Join(home, "image"))
	give(t, home, map[string]string{"platform": os.Getenv("CCRUN_SIM_ROOT"), "firmware": w.firmware, "ccrun-sim": filepath.Join(w.bin, "ccrun-sim"), "ccrun": filepath.Join(w.bin, "ccrun"), "podman-env.sh": "podman-env.sh"})
	as := func(args ...string) result {
		env := []string{"--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env", "-i", "-C", home, "PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_RUNTIME_DIR=" + filepath.Join(home, "run"),
			"CCRUN_SIM=" + filepath.Join(home, "ccrun-sim"), "CCRUN_SIM_ROOT=" + filepath.Join(home, "platform"), "CCRUN_SIM_FIRMWARE=" + filepath.Join(home, "firmware"), filepath.Join(home, "podman-env.sh")}
		return w.run(setpriv, append(env, args...)...)
	}
	podman := func(args ...string) result { return as(append([]string{"podman"}, args...)...) }
	file := filepath.Join(home, ".local/share/ccrun/volumes/rootless.vol")
	if r := as(filepath.Join(home, "ccrun"), "volume", "create", "rootless"); r.code != 0 || strings.TrimSpace(r.stdout) != file {
		t.Fatalf("a user's volume: %s\nexpected %s", r, file)
	}
	image := strings.TrimSpace(podman("pull", "-q", "oci:"+filepath.Join(home, "image")).stdout)
	created := podman("create", "--name", "rootless", "--runtime", "krun-sim", "--network", "host", image)
	if image == "" || created.code != 0 {
		t.Fatalf("creating a container of %q: %s", image, created)
	}
	defer podman("rm", "-f", "-t", "0", "rootless")
	for _, want := range []string{"fresh\nfresh\n", "kept\nkept\n"} {
		if r := podman("start", "-a", "rootless"); r.code != 0 || r.stdout != want {
			t.Fatalf("%s\nexpected %q", r, want)
		}
	}
}

// nobodysHome is a directory of the user nobody, with one for his runtime's state.
func nobodysHome(t *testing.T) string {
	t.Helper()
	home, err := os.MkdirTemp("", "rootless") // t.TempDir's parent lets nobody in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	return home
}

// give copies files and directories into home, and makes all of it nobody's.
func give(t *testing.T, home string, copies map[string]string) {
	t.Helper()
	for to, from := range copies {
		if out, err := exec.Command("cp", "-rL", from, filepath.Join(home, to)).CombinedOutput(); err != nil {
			t.Fatalf("copying %s: %v: %s", from, err, out)
		}
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(nobody.Uid)
	gid, err2 := strconv.Atoi(nobody.Gid)
	err = filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Lchown(path, uid, gid)) })
	if err := errors.Join(err, err1, err2); err != nil {
		t.Fatal(err)
	}
}
