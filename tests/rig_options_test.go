package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKrunOptions is docs/podman-differences.md on the real path: what has no
// effect is said, what cannot be is refused, and the VMM has no privilege that
// it does not need.
func TestKrunOptions(t *testing.T) {
	w := inRig(t)
	if w == nil {
		return
	}
	w.build("options", shell("id -u; echo written >/x && cat /x; while [ -e /wait ]; do sleep 1; done"))
	t.Run("no effect", w.noEffect)
	t.Run("in the log", w.toldInTheLog)
	t.Run("refused", w.refusedOptions)
	t.Run("exec", w.refusedExec)
	t.Run("no key", w.waitsForItsKey)
}

func (w *rigWorld) noEffect(t *testing.T) {
	r := w.podman("localhost/options", "--memory", "256m", "--user", "1000", "--cap-drop", "all", "-e", "SECRET=hidden",
		"-v", w.dir+":/data", "--tmpfs", "/scratch", "--ulimit", "nofile=64", "--ulimit", "nproc=99", "--umask", "077", "--pids-limit", "10", "--device", "/dev/null:/dev/zzz")
	if r.stdout != "0\nwritten\n" {
		t.Errorf("the workload noticed, or did not run: %s", r)
	}
	for _, told := range []string{"memory limit raised from 256 to 768", "--user", "--cap-drop", `"SECRET"`, "/data", "/scratch", "--ulimit", "umask", "processes raised", "devices"} {
		if !strings.Contains(r.stderr, told) {
			t.Errorf("no line about %s: %s", told, r)
		}
	}
	if strings.Contains(r.stderr, "hidden") {
		t.Errorf("a value was printed: %s", r)
	}
	for line := range strings.Lines(r.stderr) {
		if strings.Count(r.stderr, line) != 1 {
			t.Errorf("told more than once: %s", line)
		}
	}
	status, mounts := w.vmm(t)
	for _, want := range []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Uid:\t0\t0\t0\t0"} {
		if !strings.Contains(status, want) {
			t.Errorf("the VMM has no %q", want)
		}
	}
	if strings.Contains(mounts, " /data ") {
		t.Errorf("mounts of the VMM: %s", mounts)
	}
	if r := w.podman("localhost/options", "--read-only"); r.stdout != "0\n" {
		t.Errorf("a root that should be read-only, or the workload did not run: %s", r)
	}
	if _, mounts := w.vmm(t); !strings.Contains(mounts, " /disk.img ") {
		t.Errorf("mounts of the VMM: %s", mounts)
	}
}

// vmm is what the last VMM could do and see.
func (w *rigWorld) vmm(t *testing.T) (status, mounts string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.rig, "log/vmm.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vmm struct{ Status, Mounts string }
	if err := json.Unmarshal(b, &vmm); err != nil {
		t.Fatal(err)
	}
	return vmm.Status, vmm.Mounts
}

// toldInTheLog: who starts a container and goes away finds its warnings there.
func (w *rigWorld) toldInTheLog(t *testing.T) {
	w.must("podman", "run", "-d", "--name", "told", "--runtime", "krun", "--network", w.network(), "-e", "LATER=hidden", "localhost/options")
	w.must("podman", "wait", "told")
	if logs := w.run("podman", "logs", "told"); strings.Count(logs.stderr, `"LATER"`) != 1 {
		t.Errorf("expected one line about the variable: %s", logs)
	}
}

func (w *rigWorld) refusedOptions(t *testing.T) {
	for option, want := range map[string]string{"-t": "leave out -t", "-i": "leave out -i", "--annotation=krun.use_passt=1": "without a network"} {
		if r := w.podman("localhost/options", option); r.code == 0 || strings.Contains(r.stdout, "written") || !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("%s: %s", option, r)
		}
	}
	r := w.run("podman", "run", "--rm", "--runtime", "krun", "--network", w.network(), "localhost/options", "ls")
	if r.code == 0 || !strings.Contains(r.stderr, "leave them out") {
		t.Errorf("arguments: %s", r)
	}
}

func (w *rigWorld) refusedExec(t *testing.T) {
	image := w.build("runs", shell("echo up; while :; do sleep 0.1; done"))
	w.must("podman", "run", "-d", "--name", "runs", "--runtime", "krun", "--network", w.network(), image)
	w.awaitLog(t, "runs", "up")
	if r := w.run("podman", "exec", "runs", "ls"); r.code == 0 || !strings.Contains(r.stderr, "confidential VM") {
		t.Errorf("exec: %s", r)
	}
	w.must("podman", "rm", "-f", "-t", "1", "runs")
}

// waitsForItsKey: a guest whose server is not there says so, and obeys a stop.
func (w *rigWorld) waitsForItsKey(t *testing.T) {
	there := w.url
	w.url = "https://" + rigGateway + ":1" // nobody
	image := w.buildFrom("waits", "oci:"+filepath.Join(w.dir, "src/options"))
	w.url = there
	w.must("podman", "run", "-d", "--name", "waits", "--runtime", "krun", "--network", w.network(), image)
	if !eventually(func() bool { return strings.Contains(w.run("podman", "logs", "waits").stderr, "trying again") }) {
		t.Fatalf("the guest does not say that it waits: %s", w.run("podman", "logs", "waits"))
	}
	w.stop("waits") // killed, it would say nothing
	if logs := w.run("podman", "logs", "waits"); !strings.Contains(logs.stderr, "stopped by the host") || !strings.Contains(logs.stderr, "ccrun: exit status 143") {
		t.Errorf("after stop: %s", logs)
	}
}
