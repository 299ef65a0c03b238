package tests

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSystemd boots a site with systemd as PID 1: key servers as their unit has
// them, and workloads by `ccrun quadlet`, with and without --service. Workloads
// run on krun-sim, which carries a guest's status; what libkrun cannot carry,
// TestKrun shows. After a power cut one key server is away for a minute, in a soak
// for five; all else happens meanwhile.
func TestSystemd(t *testing.T) {
	outage := time.Minute
	if soaking() {
		outage = 5 * time.Minute
	}
	s := newEdgeSite(t)
	s.boot()
	s.setUp()
	s.must("systemctl", "enable", "-q", "--now", "kept")
	s.await("kept", "StatusText", "the workload runs")
	s.must("systemctl", "enable", "-q", "away", "refused")
	s.counts("kept", 1)
	s.must("systemctl", "disable", "-q", "--now", "far-server")
	s.must("sync") // images and units are there since long, as a site's are
	s.cutPower()

	s.boot()
	began := time.Now()
	s.await("kept", "ActiveState", "active")
	s.counts("kept", 2)
	s.refused()
	s.crashes()
	s.stops()
	s.newImage()
	s.quadlet(soaking())
	if r := s.show("away", "ActiveState") + " " + s.show("away", "NRestarts"); r != "activating 0" {
		t.Errorf("a unit whose key server is away: %s", r)
	}
	s.await("away", "StatusText", "connection refused")
	time.Sleep(outage - time.Since(began))
	s.must("systemctl", "start", "far-server")
	s.note("the server is back")
	s.await("away", "ActiveState", "active")
	if n := s.show("away", "NRestarts"); n != "0" {
		t.Errorf("%s restarts until the server was back, expected that the guest waits", n)
	}
}

// edgeSite is a siteMachine with two key servers and workloads.
type edgeSite struct{ *siteMachine }

func newEdgeSite(t *testing.T) *edgeSite { return &edgeSite{newSiteMachine(t)} }

// A workload counts its starts on its own disk. One takes its stop signal, the
// other does not.
const (
	counting = `n=$(($(cat /count 2>/dev/null || echo 0) + 1)); echo $n >/count; sync; echo "start $n"; `
	gentle   = counting + `trap 'echo stopping; exit 0' TERM; while :; do sleep 1 & wait $!; done`
	stubborn = counting + `trap 'echo no' TERM; while :; do sleep 1 & wait $!; done`
	stopTime = 5 // seconds, of all units
)

// setUp is what an administrator does once.
func (s *edgeSite) setUp() {
	s.write("/etc/containers/containers.conf.d/ccrun.conf", "[containers]\npids_limit = 0\n[engine]\nconmon_env_vars = [\"PATH=/usr/sbin:/usr/bin\", \"CCRUN_SIM_FIRMWARE="+s.firmware+"\"]\n"+
		"[engine.runtimes]\nkrun-sim = [\""+s.dir+"/krun-sim\"]\n")
	s.must("ccrun-sim", "init")
	s.must("chmod", "-R", "a+rX", "/var/lib/ccrun-sim")
	s.server("attest-server", "8443")
	s.server("far-server", "8444")
	s.note("servers are ready")
	s.build("kept", gentle, "attest-server", "8443")
	s.build("newer", stubborn, "attest-server", "8443")
	s.build("refused", gentle, "attest-server", "8443")
	s.build("away", gentle, "far-server", "8444")
	s.ccrun("attest-server", "8443", "workload", "revoke", "refused")
	s.must("podman", "tag", "localhost/kept", "localhost/quad")
	for _, name := range []string{"kept", "refused", "away"} {
		s.unit("/etc/systemd/system/"+name+".service", "--service", "localhost/"+name)
	}
	s.unit("/etc/containers/systemd/quad.container", "localhost/quad")
	s.unit("/etc/containers/systemd/quadrefused.container", "--name", "quadrefused", "localhost/refused")
	s.must("systemctl", "daemon-reload")
	s.note("images and units are made")
	s.judged()
}

// judged has systemd look at the units. The figures stand in docs/operations.md.
func (s *edgeSite) judged() {
	s.t.Helper()
	for unit, atMost := range map[string]float64{"kept": 8.2, "quad": 8.4, "attest-server": 1.2} {
		if out := s.must("systemd-analyze", "verify", "--man=no", s.show(unit, "FragmentPath")); out != "" {
			s.t.Errorf("systemd-analyze verify %s: %s", unit, out)
		}
		m := regexp.MustCompile(`level for .*: ([0-9.]+) `).FindStringSubmatch(s.must("systemd-analyze", "security", "--no-pager", unit))
		if m == nil {
			s.t.Fatalf("systemd-analyze security says nothing of %s", unit)
		}
		level, err := strconv.ParseFloat(m[1], 64)
		s.note("systemd-analyze security " + unit + ": " + m[1])
		if err != nil || level > atMost {
			s.t.Errorf("systemd-analyze security %s: %s, expected at most %.1f", unit, m[1], atMost)
		}
	}
}

// server makes and starts a key server as its unit's header says, but for the
// program, which takes simulated Evidence.
func (s *edgeSite) server(name, port string) {
	s.write("/etc/"+name+"/"+name+".toml", "listen = \":"+port+"\"\n")
	s.must("ccrun-sim", "attest-server", "init", "--data", "/var/lib/"+name, "--name", "127.0.0.1", "--name", gateway(s.t, s.firmware),
		"--master-key-out", "/etc/"+name+"/master-key", "--token-out", "/root/"+name+".token")
	s.must("cp", "/var/lib/"+name+"/ca.pem", "/root/"+name+".pem")
	unit := strings.ReplaceAll(string(readFile(s.t, "../packaging/systemd/attest-server.service")), "/usr/local/bin/attest-server serve", "PROGRAM serve")
	unit = strings.ReplaceAll(strings.ReplaceAll(unit, "attest-server", name), "PROGRAM", s.bin+"/ccrun-sim attest-server")
	s.write("/etc/systemd/system/"+name+".service", unit)
	s.must("systemctl", "daemon-reload")
	s.must("systemctl", "enable", "-q", "--now", name)
}

// ccrun is an owner's command.
func (s *edgeSite) ccrun(server, port string, arg ...string) string {
	s.t.Helper()
	return s.must("env", append([]string{"CCRUN_SERVER=https://127.0.0.1:" + port, "CCRUN_CA=/root/" + server + ".pem",
		"CCRUN_TOKEN_FILE=/root/" + server + ".token", "ccrun"}, arg...)...)
}

func (s *edgeSite) build(name, script, server, port string) {
	s.t.Helper()
	src := filepath.Join(s.dir, "src", name)
	writeOCI(s.t, src, shell(script), busyboxLayer(s.t))
	s.ccrun(server, port, "build", "-q", "--tee", "sample", "--firmware", s.firmware, "--attest-url", "https://"+gateway(s.t, s.firmware)+":"+port,
		"--workload-id", name, "--scratch", "192MiB", "oci:"+src, "containers-storage:localhost/"+name)
}

func (s *edgeSite) unit(path string, flags ...string) {
	s.t.Helper()
	s.write(path, s.must("ccrun", append([]string{"quadlet", "--runtime", "krun-sim", "--network", "host", "--pull", "never",
		"--stop-timeout", fmt.Sprint(stopTime)}, flags...)...))
}

// counts waits for a workload's n-th start with what it wrote.
func (s *edgeSite) counts(unit string, n int) {
	s.t.Helper()
	want := fmt.Sprintf("start %d\n", n)
	if !eventually(func() bool { return strings.Contains(s.journal(unit), want) }) {
		s.t.Fatalf("%s did not say %q:\n%s", unit, want, s.journal(unit))
	}
}

// final is a unit that was started at boot and ended for good at a refusal.
func (s *edgeSite) final(unit string) {
	s.t.Helper()
	s.await(unit, "ActiveState", "failed")
	if r := s.show(unit, "ExecMainStatus") + " " + s.show(unit, "NRestarts") + " " + s.show(unit, "SubState"); r != "77 0 failed" {
		s.t.Errorf("%s, refused its key: status, restarts, state %s", unit, r)
	}
}

func (s *edgeSite) refused() {
	s.t.Helper()
	s.final("refused")
	if text := s.show("refused", "StatusText"); !strings.Contains(text, "attestation_denied") {
		s.t.Errorf("systemctl status says %q, expected the refusal", text)
	}
}

// crashes kills the machine, and then what watches it: the unit starts the
// workload again with what it wrote, and never two.
func (s *edgeSite) crashes() {
	s.t.Helper()
	s.must("kill", "-9", strings.TrimSpace(s.must("podman", "inspect", "--format", "{{.State.Pid}}", "kept")))
	s.await("kept", "NRestarts", "1")
	s.await("kept", "StatusText", "the workload runs")
	s.counts("kept", 3)
	s.must("kill", "-9", s.show("kept", "MainPID"))
	s.await("kept", "NRestarts", "2")
	s.await("kept", "StatusText", "the workload runs")
	s.counts("kept", 4)
	if n := strings.Count(s.must("podman", "ps", "-q", "--filter", "name=kept"), "\n"); n != 1 {
		s.t.Errorf("%d containers of one unit", n)
	}
}

// stop stops a unit and says how long that took.
func (s *edgeSite) stop(unit string) time.Duration {
	s.t.Helper()
	start := time.Now()
	s.must("systemctl", "stop", unit)
	took := time.Since(start)
	s.note(fmt.Sprintf("%s stopped in %.1f s", unit, took.Seconds()))
	if out := s.must("podman", "ps", "-q", "--filter", "name=^"+unit+"$"); out != "" {
		s.t.Errorf("%s is stopped, its container runs: %s", unit, out)
	}
	return took
}

func (s *edgeSite) stops() {
	s.t.Helper()
	s.stop("kept")
	if r := s.show("kept", "ActiveState") + " " + s.show("kept", "Result"); r != "inactive success" || !strings.Contains(s.journal("kept"), "stopping\n") {
		s.t.Errorf("stopped: %s", r)
	}
}

// newImage has the unit's image replaced. The new one does not stop by itself.
func (s *edgeSite) newImage() {
	s.t.Helper()
	// What the journal has of the time before the power cut is chance.
	begun := func() int { return strings.Count(s.journal("kept"), "start 1\n") }
	before := begun()
	s.must("podman", "tag", "localhost/newer", "localhost/kept")
	s.must("systemctl", "start", "kept")
	if !eventually(func() bool { return begun() == before+1 }) {
		s.t.Errorf("a new image did not begin with an empty disk:\n%s", s.journal("kept"))
	}
	if took := s.stop("kept"); took < stopTime*time.Second {
		s.t.Errorf("a workload that takes no signal had %s to stop, expected %d s", took, stopTime)
	}
	if r := s.show("kept", "ActiveState") + " " + s.show("kept", "ExecMainStatus"); r != "failed 137" {
		s.t.Errorf("a workload that had to be killed: %s", r)
	}
}

// quadlet is Podman's own unit, started at boot, which keeps nothing.
func (s *edgeSite) quadlet(again bool) {
	s.t.Helper()
	s.final("quadrefused")
	s.counts("quad", 1)
	s.stop("quad")
	if again {
		s.must("systemctl", "start", "quad")
		if !eventually(func() bool { return strings.Count(s.journal("quad"), "start 1\n") == 2 }) {
			s.t.Fatalf("Quadlet's unit the second time:\n%s", s.journal("quad"))
		}
	}
}
