package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuadlet gives the unit that ccrun prints to Podman's own generator and
// the generated service to systemd.
func TestQuadlet(t *testing.T) {
	endToEnd(t)
	dir := t.TempDir()
	unit, err := exec.Command(filepath.Join(binDir(t), "ccrun"), "quadlet", "--publish", "8443:8443",
		"--network", "host", "registry.example/shop/fraud:1.2").Output()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "units/fraud.container"), unit)

	generator := filepath.Join(dir, "quadlet")
	build := exec.Command("go", "build", "-o", generator, "github.com/containers/podman/v5/cmd/quadlet")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building Podman's generator: %v: %s", err, out)
	}
	run := exec.Command(generator, "-dryrun")
	run.Env = append(os.Environ(), "QUADLET_UNIT_DIRS="+filepath.Join(dir, "units"))
	out, err := run.Output()
	if err != nil {
		t.Fatalf("generator: %v", err)
	}
	_, service, ok := strings.Cut(string(out), "---fraud.service---\n")
	if !ok || !strings.Contains(service, "podman --runtime=krun run") {
		t.Fatalf("no service with our runtime in:\n%s", out)
	}
	verifyUnit(t, "fraud.service", service)
}

// TestServerUnit gives attest-server's unit to systemd.
func TestServerUnit(t *testing.T) {
	endToEnd(t)
	b, err := os.ReadFile("../packaging/systemd/attest-server.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := string(b)
	if !strings.Contains(unit, "Type=notify") {
		t.Error("not Type=notify")
	}
	// systemd-analyze wants the program to exist.
	i := strings.Index(unit, "ExecStart=")
	program, _, _ := strings.Cut(unit[i+len("ExecStart="):], " ")
	verifyUnit(t, "attest-server.service", strings.ReplaceAll(unit, program, filepath.Join(binDir(t), "attest-server")))
}

func verifyUnit(t *testing.T, name, text string) {
	t.Helper()
	_, err := exec.LookPath("systemd-analyze")
	need(t, err)
	path := filepath.Join(t.TempDir(), name)
	write(t, path, []byte(text))
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), name) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
