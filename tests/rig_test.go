package tests

import (
	"encoding/json"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun"
)

// rigWorld is a world in which `podman run --runtime krun` is the real thing
// up to crun: our wrapper, crun with its krun handler, the stand-in for libkrun
// and libkrunfw's own kernel (tests/rig). Images are for TEE snp; the simulated
// chip signs SNP reports over the very bytes that libkrun was handed, and the
// server trusts its root.
type rigWorld struct {
	*world
	rig string
}

// rigGateway is QEMU's own choice, which the stand-in for libkrun leaves to it.
const rigGateway = "10.0.2.2"

// inRig runs the test again where the runtime finds the rig, and reports what
// it did there. It returns nil outside.
func inRig(t *testing.T, env ...string) *rigWorld {
	t.Helper()
	endToEnd(t)
	rig := os.Getenv("CCRUN_RIG")
	if rig == "" {
		t.Fatal("CCRUN_RIG names no rig; `make rig` builds one")
	}
	if os.Getenv("CCRUN_RIG_ENTERED") == "1" {
		w := &rigWorld{newWorldWith(t, "--test-root", filepath.Join(os.Getenv("CCRUN_SIM_ROOT"), "roots")), rig}
		w.url = "https://" + rigGateway + ":" + w.port
		w.settings(map[string]any{})
		return w
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	only := "^" + regexp.QuoteMeta(t.Name()) + "$"
	if _, part, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		only += "/" + part // some of its subtests
	}
	cmd := exec.Command("rig/enter.sh", rig, t.TempDir(), self, "-test.v", "-test.run", only)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	t.Logf("in the rig:\n%s", out)
	if err != nil {
		t.Errorf("in the rig: %v", err)
	}
	return nil
}

// settings are tests/rig/vmm's, over those that every test needs.
func (w *rigWorld) settings(more map[string]any) {
	w.t.Helper()
	all := map[string]any{"Append": "ccrun.net=10.0.2.15/24," + rigGateway + ",", "Chip": "/.rig/chip"}
	for k, v := range more {
		all[k] = v
	}
	b, err := json.Marshal(all)
	if err != nil {
		w.t.Fatal(err)
	}
	write(w.t, filepath.Join(w.rig, "settings.json"), b)
	link := filepath.Join(w.rig, "chip")
	_ = os.Remove(link)
	if err := os.Symlink(filepath.Join(os.Getenv("CCRUN_SIM_ROOT"), "chip"), link); err != nil {
		w.t.Fatal(err)
	}
}

// build makes a workload image for TEE snp of busybox and config.
func (w *rigWorld) build(name string, config map[string]any, extra ...string) string {
	w.t.Helper()
	src := filepath.Join(w.dir, "src", name)
	writeOCI(w.t, src, config, busyboxLayer(w.t))
	return w.buildFrom(name, "oci:"+src, extra...)
}

func (w *rigWorld) buildFrom(name, source string, extra ...string) string {
	w.t.Helper()
	image := "localhost/" + name
	args := []string{"build", "-q", "--agent", filepath.Join(w.rig, "init"), "--firmware", filepath.Join(w.rig, "libkrunfw-sev.so.5"), "--memory", "512",
		"--attest-url", w.url, "--attest-ca", filepath.Join(w.dir, "server/ca.pem"), "--workload-id", name}
	w.must("ccrun", append(append(args, extra...), source, "containers-storage:"+image)...)
	return image
}

// network is the test's own, in which the server listens: the runtime refuses
// the host's, as it would be for a container on a real host.
func (w *rigWorld) network() string { return "ns:" + os.Getenv("CCRUN_RIG_NETNS") }

func (w *rigWorld) podman(image string, flags ...string) result {
	w.t.Helper()
	args := append([]string{"run", "--rm", "--runtime", "krun", "--network", w.network()}, flags...)
	return w.run("podman", append(args, image)...)
}

// TestKrun is the real path's first half hour: what a workload says arrives
// where it belongs, with its status, and it stops when it is told to.
func TestKrun(t *testing.T) {
	w := inRig(t)
	if w == nil {
		return
	}
	t.Run("output and status", w.outputAndStatus)
	t.Run("denied", w.denied)
	t.Run("logs none", w.logsNone)
	t.Run("logs encrypted", w.logsEncrypted)
	t.Run("stop", w.stops)
	t.Run("ccrun run", w.ccrunRun)
	t.Run("network", w.networks)
	t.Run("service", w.serviceOfLibkrun)
	t.Run("read-only root", w.readOnlyRoot)
	t.Run("a cipher that the kernel lacks", w.lacksCipher)
}

func (w *rigWorld) outputAndStatus(t *testing.T) {
	long := strings.Repeat("x", 5000)
	image := w.build("speaks", shell("echo out; echo err >&2; echo "+long+"; printf 'no end'; exit 7"))
	r := w.podman(image)
	if want := "out\n" + long + "\nno end"; r.stdout != want {
		t.Errorf("stdout is %q, expected %q", r.stdout, want)
	}
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	slices.SortFunc(lines[:min(2, len(lines))], func(a, b string) int { return len(a) - len(b) }) // two ways to the host
	if len(lines) != 3 || lines[0] != "err" || !strings.HasSuffix(lines[1], krun.StartedLine) || !strings.HasSuffix(lines[2], "ccrun: exit status 7") {
		t.Errorf("stderr is %q, expected the workload's line and the agent's two", lines)
	}
}

// readOnlyRoot is EROFS that nothing is written over, as on libkrunfw's SEV
// kernel, which has no overlayfs: VOLUMEs can be written all the same, and the
// user is known.
func (w *rigWorld) readOnlyRoot(t *testing.T) {
	c := shell(`tail -n1 /etc/passwd; busybox whoami; echo x 2>/dev/null >/x || echo root is read-only
echo kept >/data/f && cat /data/f; stat -c '%A %u %g' /data; stat -c '%A %s' /run/.containerenv`)
	c["User"], c["WorkingDir"], c["Volumes"] = "10001", "/work", map[string]struct{}{"/data": {}}
	r := w.podman(w.build("readonly", c, "--fs", "erofs", "--read-only"))
	want := "10001:*:10001:0:container user:/work:/bin/sh\n10001\nroot is read-only\nkept\ndrwxr-xr-x 10001 0\n-rw-r--r-- 0\n"
	if r.stdout != want {
		t.Errorf("%s\nexpected %s", r, want)
	}
}

func (w *rigWorld) denied(t *testing.T) {
	image := w.build("denied", shell("echo must not run"))
	w.must("ccrun", "workload", "revoke", "denied")
	r := w.ccrun(t, image, 77)
	if r.stdout != "" || !strings.Contains(r.stderr, "attestation_denied") || !strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 77") {
		t.Errorf("a revoked workload: %s", r)
	}
}

func (w *rigWorld) logsNone(t *testing.T) {
	image := w.build("mute", shell("echo out; echo err >&2; exit 9"), "--logs", "none")
	r := w.ccrun(t, image, 9)
	if r.stdout != "" || strings.Count(r.stderr, "\n") != 2 || !strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 9") {
		t.Errorf("a workload without logs: %s", r)
	}
}

// logsEncrypted: both streams on one port, beside libkrun's own lines, down to
// the end that the guest writes as it goes.
func (w *rigWorld) logsEncrypted(t *testing.T) {
	key, sealed := w.logReader(t, "rig")
	image := w.build("sealed-krun", shell(`echo "`+logCanary+` out"; echo "`+logCanary+` err" >&2; head -c 200000 /dev/zero; exit 9`), sealed...)
	r := w.run("podman", "run", "--name", "sealed-krun", "--runtime", "krun", "--network", w.network(), image)
	if strings.Contains(r.String(), logCanary) || !strings.Contains(r.stdout, "[ccl1.") || !strings.HasSuffix(strings.TrimSpace(r.stderr), "ccrun: exit status 9") {
		t.Errorf("the host reads %.2000s", r)
	}
	want := logCanary + " out\n" + strings.Repeat("\x00", 200_000)
	if got := w.run("ccrun", "logs", "-q", "sealed-krun", "--identity", key); got.code != 0 || got.stdout != want || got.stderr != logCanary+" err\n" {
		t.Errorf("the owner reads %d bytes, expected %d, and %.500q, status %d", len(got.stdout), len(want), got.stderr, got.code)
	}
}

// stops: libkrun takes SIGINT alone, which the image therefore names as its
// StopSignal; the workload gets its own.
func (w *rigWorld) stops(t *testing.T) {
	config := shell("trap 'echo got QUIT; exit 3' QUIT; echo up; while :; do sleep 0.1; done")
	config["StopSignal"] = "SIGQUIT"
	image := w.build("stops", config)
	w.must("podman", "run", "-d", "--name", "stops", "--runtime", "krun", "--network", w.network(), image)
	w.awaitLog(t, "stops", "up")
	w.stop("stops") // killed, it would say nothing
	logs := w.run("podman", "logs", "stops")
	if !strings.Contains(logs.stdout, "got QUIT") || !strings.Contains(logs.stderr, "ccrun: exit status 3") {
		t.Errorf("after stop: %s", logs)
	}
	if left, _ := filepath.Glob("/run/ccrun/*"); len(left) != 0 {
		w.must("podman", "rm", "stops")
	}
}

// networks: what a workload finds with name servers, and without a network. The
// kernel has TSI, but the rig a network device besides, because nothing here
// speaks the other end of TSI.
func (w *rigWorld) networks(t *testing.T) {
	if r := w.run("podman", "run", "--rm", "--runtime", "krun", "--network", "host", "localhost/speaks"); r.code == 0 || !strings.Contains(r.stderr, "loopback") {
		t.Errorf("the host's network: %s", r)
	}
	script := shell(`cat /etc/resolv.conf; cat /sys/module/kernel/parameters/tsi_hijack; ip -o addr; httpd -p 127.0.0.1:80 -h /tmp; sleep 1; cat /proc/net/tcp`)
	for name, c := range map[string]struct {
		flags      []string
		want, lack []string
	}{
		"named": {[]string{"--dns", "9.9.9.9"}, []string{"nameserver 9.9.9.9\n", "Y\n", "10.0.2.15/24"}, []string{"0100007F:0050"}},
		"none":  {[]string{"--network", "none"}, []string{"N\n", "127.0.0.1/8", "0100007F:0050"}, []string{"nameserver", "state UP"}},
	} {
		r := w.podman(w.build("network-"+name, script, c.flags...))
		for _, s := range c.want {
			if !strings.Contains(r.stdout, s) {
				t.Errorf("%s: no %q in %s", name, s, r)
			}
		}
		for _, s := range c.lack {
			if strings.Contains(r.stdout, s) {
				t.Errorf("%s: %q in %s", name, s, r)
			}
		}
	}
}

// notified plays systemd for the commands that follow, until told says what they
// told it.
func (w *rigWorld) notified(t *testing.T) (told func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	env := w.env
	w.env = append(slices.Clone(env), "NOTIFY_SOCKET="+path)
	heard := make(chan string)
	go func() {
		var said strings.Builder
		for b := make([]byte, 4096); ; said.WriteByte('\n') {
			n, err := l.Read(b)
			if err != nil || string(b[:n]) == "END" {
				heard <- said.String()
				return
			}
			said.Write(b[:n])
		}
	}()
	return func() string {
		w.env = env
		defer l.Close()
		end, err := net.Dial("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer end.Close()
		if _, err := end.Write([]byte("END")); err != nil {
			t.Fatal(err)
		}
		return <-heard
	}
}

// ccrun carries the status that Podman alone cannot, and tells systemd.
func (w *rigWorld) ccrun(t *testing.T, image string, status int) result {
	t.Helper()
	told := w.notified(t)
	r := w.run("ccrun", "run", "--rm", "--runtime", "krun", "--network", w.network(), image)
	if r.code != status {
		t.Errorf("ccrun run %s: %s\nexpected status %d", image, r, status)
	}
	said := told()
	if ready := strings.Contains(said, "READY=1"); ready != (status != 77) || !ready && !strings.Contains(said, "STATUS=obtaining the disk key: ") {
		t.Errorf("ccrun run %s told systemd %q", image, said)
	}
	return r
}

// ccrunRun hands on the signal that libkrun would not.
func (w *rigWorld) ccrunRun(t *testing.T) {
	w.ccrunSignal(t, "krun", w.network(), w.build("run-signal-krun", signalled()))
}

// TestKrunNoExecRun: Debian and Ubuntu mount /run noexec.
func TestKrunNoExecRun(t *testing.T) {
	w := inRig(t, "CCRUN_RIG_NOEXEC_RUN=1")
	if w == nil {
		return
	}
	image := w.build("noexec", shell("echo it runs"))
	if r := w.podman(image); r.stdout != "it runs\n" {
		t.Errorf("with /run noexec: %s", r)
	}
	if left, _ := filepath.Glob("/var/lib/ccrun/run/*"); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// stepTimes are what the agent says, under ccrun.debug, of when it had opened the
// image and its scratch area.
var stepTimes = regexp.MustCompile(`(?m)\[ *[0-9.]+ s\] (opened keyslot|unlocking the disk|confirming the release|mounting the disk)`)

// agentMemory is what the agent says of itself when the workload has started, and
// maxAgentKiB what it may have: all of it is missing to the workload.
var agentMemory = regexp.MustCompile(`workload started, the agent has (\d+) KiB of memory`)

const maxAgentKiB = 10 << 10

func wantSmallAgent(t *testing.T, r result) {
	t.Helper()
	m := agentMemory.FindStringSubmatch(r.stderr)
	if m == nil {
		t.Fatalf("the agent does not say what memory it has: %s", r)
	}
	if kib, err := strconv.Atoi(m[1]); err != nil || kib < 1024 || kib > maxAgentKiB {
		t.Errorf("the agent has %s KiB while the workload runs, expected 1024 to %d", m[1], maxAgentKiB)
	}
	t.Log(m[0])
}

// TestRoom: the room that the documentation promises can be written, whatever
// the size of the image, and what is deleted can be written again.
func TestRoom(t *testing.T) {
	w := inRig(t)
	if w == nil {
		return
	}
	const scratch = 192 << 20
	w.settings(map[string]any{"Append": "ccrun.debug ccrun.net=10.0.2.15/24," + rigGateway + ","})
	sizes := []int{20, 250}
	if soaking() {
		sizes = []int{20, 150, 1000, 1700}
	}
	for _, mib := range sizes {
		name := "room" + strconv.Itoa(mib)
		src := filepath.Join(w.dir, "src", name)
		layer := append(busyboxLayer(t), file("filler", 0o644, make([]byte, mib<<20)))
		writeOCI(t, src, shell(`for i in 1 2; do dd if=/dev/zero of=/written bs=64k 2>/dev/null; stat -c %s /written; rm /written; sync; done`), layer)
		image := w.buildFrom(name, "oci:"+src, "--scratch", "192MiB")
		r := w.podman(image)
		lines := strings.Fields(r.stdout)
		for _, line := range lines {
			if written, err := strconv.Atoi(line); err != nil || written < scratch*5/8 {
				t.Errorf("%d MiB: %d bytes could be written (%v), expected five eighths of %d or more", mib, written, err, scratch)
			}
		}
		if len(lines) != 2 {
			t.Error(r)
		}
		wantSmallAgent(t, r)
		t.Logf("image of %d MiB, scratch of %d: %s\n%s", mib, scratch, lines, strings.Join(stepTimes.FindAllString(r.stderr, -1), "\n"))
		w.must("podman", "rmi", "-f", image)
		if err := os.RemoveAll(src); err != nil {
			t.Fatal(err)
		}
	}
}
