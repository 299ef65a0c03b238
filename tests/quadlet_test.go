package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestQuadlet gives the units that ccrun prints to Podman's own generator and
// the generated services to this machine's systemd.
func TestQuadlet(t *testing.T) {
	endToEnd(t)
	dir := t.TempDir()
	generator := filepath.Join(dir, "quadlet")
	build := exec.Command("go", "build", "-o", generator, "github.com/containers/podman/v5/cmd/quadlet")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building Podman's generator: %v: %s", err, out)
	}
	again := map[string]string{"krun": "\nRestart=always\n", "krun-sim": "\nRestart=on-failure\n"}
	for _, user := range []bool{false, true} {
		units := filepath.Join(dir, "units", map[bool]string{false: "system", true: "user"}[user])
		for runtime := range again {
			write(t, filepath.Join(units, "under-"+runtime+".container"), printedUnit(t, user, "--runtime", runtime, "--name", "under-"+runtime))
		}
		out := generated(t, generator, units, user)
		for runtime, restart := range again {
			name := "under-" + runtime + ".service"
			_, service, ok := strings.Cut(out, "---"+name+"---\n")
			service, _, _ = strings.Cut(service, "\n---")
			for _, want := range []string{"podman --runtime=" + runtime + " run", " --stop-timeout=60 ", restart, "\nRestartPreventExitStatus=77\n"} {
				if !ok || !strings.Contains(service, want) {
					t.Errorf("no service with %q in:\n%s", want, out)
				}
			}
			verifyUnit(t, name, service, user)
		}
	}
	pair := filepath.Join(dir, "units/pair")
	two := exec.Command("../examples/two-workloads/units.sh", pair)
	two.Env = append(os.Environ(), "PATH="+binDir(t)+":"+os.Getenv("PATH"))
	if out, err := two.CombinedOutput(); err != nil {
		t.Fatalf("units of the example: %v: %s", err, out)
	}
	out := generated(t, generator, pair, false)
	for name, want := range map[string]string{"ledger": "127.0.0.1:8781:8780", "shop": "\nWants=ledger.service\nAfter=ledger.service\n"} {
		_, service, ok := strings.Cut(out, "---"+name+".service---\n")
		service, _, _ = strings.Cut(service, "\n---")
		if !ok || !strings.Contains(service, want) {
			t.Fatalf("the example's %s has no %q in:\n%s", name, want, out)
		}
		verifyUnit(t, name+".service", service, false)
	}
}

// generated is what Podman's generator makes of the units in a directory.
func generated(t *testing.T, generator, units string, user bool) string {
	t.Helper()
	args := []string{"-dryrun"}
	if user {
		args = append(args, "-user")
	}
	run := exec.Command(generator, args...)
	run.Env = append(os.Environ(), "QUADLET_UNIT_DIRS="+units)
	out, err := run.Output()
	if err != nil {
		t.Fatalf("generator: %v", err)
	}
	return string(out)
}

// TestServiceOfRun gives the services that ccrun prints to this machine's systemd.
func TestServiceOfRun(t *testing.T) {
	endToEnd(t)
	for _, user := range []bool{false, true} {
		for _, runtime := range []string{"krun", "krun-sim"} {
			text := string(printedUnit(t, user, "--service", "--runtime", runtime))
			for _, want := range []string{"\nType=notify\n", "\nRestart=on-failure\n", "\nRestartPreventExitStatus=77\n", "\nStartLimitIntervalSec=0\n", "\nTimeoutStartSec=infinity\n"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			verifyUnit(t, "fraud.service", text, user)
		}
	}
}

func printedUnit(t *testing.T, user bool, flags ...string) []byte {
	t.Helper()
	args := append([]string{"quadlet", "--publish", "8443:8443", "--network", "bridge"}, flags...)
	if user {
		args = append(args, "--user")
	}
	unit, err := exec.Command(filepath.Join(binDir(t), "ccrun"), append(args, "registry.example/shop/fraud:1.2")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return unit
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
	verifyUnit(t, "attest-server.service", strings.ReplaceAll(unit, program, filepath.Join(binDir(t), "attest-server")), false)
}

// verifyUnit wants no word of systemd-analyze about the unit, not even a warning.
func verifyUnit(t *testing.T, name, text string, user bool) {
	t.Helper()
	_, err := exec.LookPath("systemd-analyze")
	need(t, err)
	path := filepath.Join(t.TempDir(), name)
	write(t, path, []byte(text))
	args := []string{"verify", "--man=no", path}
	if user {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir()) // which a user's manager has
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), name) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
