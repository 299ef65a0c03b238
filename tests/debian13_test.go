package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDebian13 runs the tests of Podman in a root file system of Debian 13:
// Podman 5.4, crun 1.21, QEMU 10, where the machine under them has older ones.
func TestDebian13(t *testing.T) {
	endToEnd(t)
	if os.Getenv("CCRUN_INSIDE") != "" {
		t.Skip("TestDebian13 runs outside of that root")
	}
	rig := os.Getenv("CCRUN_RIG")
	root, err := filepath.EvalSymlinks(filepath.Join(rig, "root"))
	if err != nil {
		t.Fatalf("no root of Debian 13 in the rig (`make rig`): %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "tests.test") // go's own is in a directory that may not be there inside
	copyFile(t, self, binary)
	if err := os.Chmod(binary, 0o755); err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Dir(here), dir, binDir(t), filepath.Dir(filepath.Dir(rig)), os.Getenv("CCRUN_SIM_FIRMWARE"), os.Getenv("CCRUN_SIM_ROOT")}
	mount := filepath.Join(dir, "mount")
	tmp := filepath.Join(dir, "tmp")
	for _, d := range []string{mount, tmp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("rig/inside.sh", root, mount, strings.Join(paths, ":"), filepath.Join(here, "podman-env.sh"), binary,
		"-test.v", "-test.timeout", "20m", "-test.run", "^(TestKrun|TestDoctor|TestWorkload)$")
	for _, kv := range os.Environ() {
		// The other Podman has its own configuration.
		if !strings.HasPrefix(kv, "CONTAINERS_CONF") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp, "CCRUN_INSIDE=debian13")
	out, err := cmd.CombinedOutput()
	t.Logf("in Debian 13:\n%s", out)
	if err != nil {
		t.Errorf("in Debian 13: %v", err)
	}
}
