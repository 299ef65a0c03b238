package tests

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDebian13 runs the tests of Podman in a root file system of Debian 13:
// Podman 5.4, crun 1.21, QEMU 10, where the machine under them has older ones.
// What those have no part in, the tests show outside; a soak shows it here, too.
func TestDebian13(t *testing.T) {
	tests := "^(TestKrun|TestDoctor|TestPortable|TestCorpus|TestPods)$/^(" +
		"output_and_status|denied|stop|network|save_and_load_oci-archive|generate_kube_and_kube_play|shell|kube_play|pod_create)$"
	if soaking() {
		tests = "^(TestKrun|TestDoctor|TestWorkload|TestPortable|TestCorpus|TestPods|TestKrunPods)$"
	}
	runInside(t, "root", tests)
}

// TestDebianSid does the same with the newest Podman that Debian has. Whether
// that suite can be installed today is not ours to say.
func TestDebianSid(t *testing.T) {
	if _, err := os.Stat(filepath.Join(os.Getenv("CCRUN_RIG"), "root-sid")); err != nil && os.Getenv("CCRUN_RIG") != "" {
		t.Skip("TestDebianSid: no root of Debian's sid could be made; `make rig` says why")
	}
	tests := "^TestKrun$/^(output_and_status|denied|stop)$"
	if soaking() {
		tests = "^(TestKrun|TestPods)$"
	}
	runInside(t, "root-sid", tests)
}

// runInside runs tests in the rig's root of another suite; of a list
// `-run 'TestDebian13/^TestPods$'` runs that alone.
func runInside(t *testing.T, link, tests string) {
	t.Helper()
	endToEnd(t)
	if os.Getenv("CCRUN_INSIDE") != "" {
		t.Skipf("%s runs outside of another suite's root", t.Name())
	}
	if _, only, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		tests = only
	}
	if strings.Contains(tests, "TestCorpus") {
		corpusLayers(t, chosenImages(true))
	}
	rig := os.Getenv("CCRUN_RIG")
	root, err := filepath.EvalSymlinks(filepath.Join(rig, link))
	if err != nil {
		t.Fatalf("the rig has no %s (`make rig`): %v", link, err)
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
		"-test.v", "-test.timeout", "45m", "-test.run", tests)
	for _, kv := range os.Environ() {
		// The other Podman has its own configuration.
		if !strings.HasPrefix(kv, "CONTAINERS_CONF") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp, "CCRUN_INSIDE="+link, "CCRUN_PROBE="+buildProbe(t, dir))
	out, err := cmd.CombinedOutput()
	t.Logf("in %s:\n%s", link, out)
	if err != nil {
		t.Errorf("in %s: %v", link, err)
	}
}
