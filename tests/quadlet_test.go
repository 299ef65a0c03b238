package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuadlet gives the units that ccrun prints to Podman's own generator and
// the generated services to systemd.
func TestQuadlet(t *testing.T) {
	endToEnd(t)
	dir := t.TempDir()
	for _, runtime := range []string{"krun", "krun-sim"} {
		unit, err := exec.Command(filepath.Join(binDir(t), "ccrun"), "quadlet", "--publish", "8443:8443", "--network", "bridge",
			"--runtime", runtime, "--name", "under-"+runtime, "registry.example/shop/fraud:1.2").Output()
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "units/under-"+runtime+".container"), unit)
	}
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
	for runtime, again := range map[string]string{"krun": "\nRestart=always\n", "krun-sim": "\nRestartPreventExitStatus=77\n"} {
		name := "under-" + runtime + ".service"
		_, service, ok := strings.Cut(string(out), "---"+name+"---\n")
		service, _, _ = strings.Cut(service, "\n---")
		if !ok || !strings.Contains(service, "podman --runtime="+runtime+" run") || !strings.Contains(service, again) {
			t.Fatalf("no service with our runtime and %q in:\n%s", again, out)
		}
		verifyUnit(t, name, service)
	}
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
