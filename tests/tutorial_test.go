package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// psLine is a workload as `ccrun ps` has it.
var psLine = regexp.MustCompile(`(?m)^[0-9a-f]{12} +hello +hello +running +.* ago +https://\S+ +[0-9a-f]{12} +512MiB$`)

// TestTutorial types docs/tutorial.md into one shell, as written, but for the
// lines that build the programs. Its HOME and Podman's storage are the test's.
func TestTutorial(t *testing.T) {
	endToEnd(t)
	for _, tool := range []string{"podman", "qemu-system-x86_64", "crun", "curl", "busybox"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	raw, err := os.ReadFile("../docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir()}
	write(t, filepath.Join(w.dir, "storage.conf"), []byte("[storage]\ndriver = \"overlay\"\ngraphroot = \""+
		filepath.Join(w.dir, "storage")+"\"\nrunroot = \""+filepath.Join(w.dir, "run")+"\"\n"))
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for _, block := range shellBlock.FindAllStringSubmatch(string(raw), -1) {
		if !strings.HasPrefix(block[1], "make ") {
			script.WriteString("echo '@@@' >&2\nset -v\n" + block[1] + "set +v\n")
		}
	}
	cmd := exec.Command("bash", "-c", script.String())
	cmd.Dir = w.dir
	w.bin = binDir(t)
	cmd.Env = append(os.Environ(), "HOME="+w.dir, "XDG_STATE_HOME=", "XDG_CONFIG_HOME=", "CONTAINERS_STORAGE_CONF="+filepath.Join(w.dir, "storage.conf"),
		"PATH="+w.bin+":"+os.Getenv("PATH"), "TMPDIR="+w.mkdir("tmp"))
	// What podman-env.sh and the machine's owner have set is not a reader's.
	for _, name := range []string{"CCRUN_SIM_ROOT", "CCRUN_SIM_FIRMWARE", "CCRUN_SERVER", "CCRUN_TOKEN_FILE", "CCRUN_CA"} {
		cmd.Env = append(cmd.Env, name+"=")
	}
	w.env = cmd.Env
	t.Cleanup(w.close)
	t.Cleanup(func() { w.run("ccrun-sim", "down") }) // of a tutorial that stopped half way
	out, err := cmd.CombinedOutput()
	said := string(out)
	if err != nil {
		t.Fatalf("the tutorial stops: %v\n%s", err, said)
	}
	for _, want := range []string{"only the guest can read this", "refused: status 77", "MEM USAGE / MACHINE", "not_revoked", "denied: not_revoked", "granted"} {
		if !strings.Contains(said, want) {
			t.Errorf("the tutorial does not show %q", want)
		}
	}
	if n := strings.Count(said, "only the guest can read this\n"); n < 2 {
		t.Errorf("the page was shown %d times, expected before and after the rotation", n)
	}
	if !psLine.MatchString(said) {
		t.Error("`ccrun ps` does not list the workload with its server, measurement and memory")
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, ".local/state")); err != nil || len(left) > 0 {
		t.Errorf("`ccrun-sim down` leaves %v (%v)", left, err)
	}
	if t.Failed() {
		t.Log(said)
	}
}
