package tests

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/krun"
)

// TestWorkload runs the main job in a real guest kernel and looks at the
// workload from the inside.
func TestWorkload(t *testing.T) {
	w := newWorld(t)
	t.Run("output, environment, input, user, exit status", func(t *testing.T) {
		c := shell(`echo "$GREETING from $(id -u) in $(pwd)"; echo "read $(cat)."; echo $HOME; id; grep Cap /proc/self/status; exit 41`)
		c["User"], c["WorkingDir"] = "app", "/home/app"
		r := w.podman(w.build("hello", c)) // with -i it is refused
		if r.code != 41 || !strings.HasPrefix(r.stdout, "hello from 1000 in /home/app\nread .\n/home/app\n") {
			t.Error(r)
		}
		for _, want := range []string{"uid=1000(app) gid=1000", "2000(extra)", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("no %q in %s", want, r)
			}
		}
	})
	t.Run("configuration as Podman honours it", func(t *testing.T) { w.configuration(t) })
	t.Run("nothing a workload must not have", func(t *testing.T) { w.hardening(t) })
	t.Run("the stop signal reaches the workload, others as measured", func(t *testing.T) { w.signals(t) })
	t.Run("room on the disk", func(t *testing.T) { w.room(t) })
	t.Run("ccrun run", func(t *testing.T) { w.ccrunRun(t) })
	t.Run("rotated disk key", func(t *testing.T) { w.rotated(t) })
	t.Run("not a workload image", func(t *testing.T) {
		writeOCI(t, filepath.Join(w.dir, "src/plain"), shell("echo plain"), busyboxLayer(t))
		w.must("skopeo", "copy", "-q", "oci:"+filepath.Join(w.dir, "src/plain"), "containers-storage:localhost/plain")
		r := w.run("ccrun", "run", "--rm", "--runtime", "krun-sim", "localhost/plain")
		if r.code != 125 || !strings.Contains(r.stderr, "not a confidential workload") {
			t.Fatal(r)
		}
	})
	t.Run("runtime krun over a crun without libkrun", func(t *testing.T) {
		w.stockLibrary(t)
		image := w.build("krun", shell("echo plain container"), "--tee", "snp", "--firmware", filepath.Join(w.dir, "libkrunfw-sev.so.5"))
		r := w.run("podman", "run", "--rm", "--runtime", "krun", image)
		if r.code == 0 || strings.Contains(r.stdout, "plain container") || !strings.Contains(r.stderr, "built without libkrun") {
			t.Fatal(r)
		}
	})
	t.Run("no runtime at all says so", func(t *testing.T) {
		r := w.run("podman", "run", "--rm", "--runtime", "crun", "localhost/krun")
		if r.code != 125 || !strings.Contains(r.stdout+r.stderr, "krun") {
			t.Fatal(r)
		}
	})
	t.Run("a runtime without libkrun is refused", func(t *testing.T) {
		image := w.build("nolibkrun", shell("true"))
		r := w.run("ccrun", "run", "--rm", "--runtime", "crun", image)
		if r.code != 125 || !strings.Contains(r.stderr, "no libkrun") {
			t.Fatal(r)
		}
	})
}

// configuration is an image with a user by number, volumes that it lacks, and
// an EXPOSE and Env of the odd kinds. The lines are what Podman 4.3.1 prints.
func (w *world) configuration(t *testing.T) {
	for _, fs := range krun.Filesystems() {
		if fs == "ext4" && !soaking() { // as hardening's
			continue
		}
		c := shell(`tail -n1 /etc/passwd; busybox whoami; id; echo "$HOME $ODD."; stat -c '%A %u %g %n' /data /deep /deep/er
echo kept >/data/f && echo kept >/deep/er/f && cat /data/f /deep/er/f; stat -c '%A %s' /run/.containerenv; ulimit -u`)
		c["User"], c["WorkingDir"] = "10001", "work"
		c["Env"] = append(c["Env"].([]string), "ODD")
		c["Volumes"] = map[string]struct{}{"/data": {}, "/deep/er": {}}
		c["ExposedPorts"] = map[string]struct{}{"33060-33061/TCP": {}, "nonsense": {}}
		r := w.podman(w.build("configuration-"+fs, c, "--fs", fs))
		want := `10001:*:10001:0:container user:/work:/bin/sh
10001
uid=10001(10001) gid=0(root) groups=0(root)
/work .
drwxr-xr-x 10001 0 /data
drwxr-xr-x 0 0 /deep
drwxr-xr-x 10001 0 /deep/er
kept
kept
-rw-r--r-- 0
32768
`
		if r.code != 0 || r.stdout != want {
			t.Errorf("%s: %s\nexpected %s", fs, r, want)
		}
	}
}

// probes are what a root workload tries; each must print "no".
var probes = map[string]string{
	"report port":         `cat /dev/vport* 2>/dev/null`,
	"sev-guest node":      `ls /dev/sev-guest 2>/dev/null || { mknod /tmp/d c 10 124 2>/dev/null && cat /tmp/d; }`,
	"physical memory":     `mknod /tmp/m c 1 1 2>/dev/null && head -c1 /tmp/m`,
	"disk":                `mknod /tmp/v b 254 0 2>/dev/null && head -c1 /tmp/v`,
	"mount":               `mount -t tmpfs x /tmp 2>/dev/null`,
	"configfs":            `ls /sys/kernel/config/tsm 2>/dev/null || mount -t configfs x /tmp 2>/dev/null`,
	"sysrq":               `echo b >/proc/sysrq-trigger 2>/dev/null`,
	"kernel parameters":   `echo 1 >/proc/sys/kernel/sysrq 2>/dev/null`,
	"kernel core":         `head -c1 /proc/kcore 2>/dev/null | grep -q .`,
	"user namespace":      `unshare -U true 2>/dev/null`,
	"memory of the agent": `ls /proc | grep -q '^[3-9][0-9]$' || cat /proc/1/maps 2>/dev/null | grep -q ccrun-init`,
	"sys is read-only":    `echo 0 >/sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null`,
}

func (w *world) hardening(t *testing.T) {
	var script strings.Builder
	script.WriteString("grep Cap /proc/self/status\n")
	for name, probe := range probes {
		fmt.Fprintf(&script, "if %s; then echo '%s: yes'; else echo '%s: no'; fi\n", probe, name, name)
	}
	script.WriteString("/bin/probe\n")
	layers := [][]entry{busyboxLayer(t), probeLayer(t, w.dir)}
	r := w.podman(w.buildLayers("hardening", shell(script.String()), layers, "--fs", "ext4"))
	for name := range probes {
		if !strings.Contains(r.stdout, name+": no") {
			t.Errorf("%s is open to the workload", name)
		}
	}
	// Podman's default set: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID
	// SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP.
	if !strings.Contains(r.stdout, "CapBnd:\t00000000800405fb") {
		t.Errorf("bounding set is not Podman's default")
	}
	barriers(t, "ext4", r)
	r = w.podman(w.buildLayers("hardening-erofs", shell(`[ ! -e /etc/b ] && echo a >/tmp/a && echo b >/etc/b && echo more >>/etc/group && cat /tmp/a /etc/b && tail -n1 /etc/group
grep ' / ' /proc/mounts; exec /bin/probe`), layers, "--fs", "erofs"))
	if !strings.HasPrefix(r.stdout, "a\nb\nmore\n") || !strings.Contains(r.stdout, "overlay / overlay") {
		t.Errorf("erofs: %s", r)
	}
	barriers(t, "erofs", r)
}

// barriers reads what the probe found.
func barriers(t *testing.T, fs string, r result) {
	t.Helper()
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, "YES: ") {
			t.Errorf("%s: a barrier is missing: %s", fs, strings.TrimSpace(line))
		}
	}
	if n := strings.Count(r.stdout, "\nno: "); n < 40 || !strings.Contains(r.stdout, "\ndone\n") {
		t.Errorf("%s: %d barriers were tried", fs, n)
	}
	if t.Failed() {
		t.Log(r)
	}
}

// probeLayer has the probe, and device nodes that anybody may open.
func probeLayer(t *testing.T, dir string) []entry {
	t.Helper()
	path := os.Getenv("CCRUN_PROBE") // another suite's root has no Go
	if path == "" {
		path = buildProbe(t, dir)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	node := func(name string, minor int64) entry {
		return entry{Header: tar.Header{Name: name, Mode: 0o666, Typeflag: tar.TypeChar, Devmajor: 1, Devminor: minor}}
	}
	return []entry{file("bin/probe", 0o755, b), {Header: tar.Header{Name: "devices/", Mode: 0o755, Typeflag: tar.TypeDir}},
		node("devices/null", 3), node("devices/zero", 5)}
}

// buildProbe makes the program and returns its path.
func buildProbe(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v\n%s", err, out)
	}
	return path
}

// signals sends what ends or steers a program, before its stop signal: one image
// takes SIGHUP, the other nothing. Each ends by its own stop signal.
func (w *world) signals(t *testing.T) {
	const script = `for s in HUP QUIT USR2 WINCH; do trap "echo got $s" $s; done; trap 'echo stopping by TERM; exit 9' TERM; trap 'echo stopping by USR1; exit 7' USR1
echo ready; while :; do sleep 1 & wait $!; done`
	for name, c := range map[string]struct {
		stop, code string
		flags      []string
		want       string
	}{
		"signals-none": {"SIGUSR1", "7", nil, "ready\nstopping by USR1\n"},
		"signals-hup":  {"SIGTERM", "9", []string{"--signals-allow", "HUP"}, "ready\ngot HUP\nstopping by TERM\n"},
	} {
		config := shell(script)
		config["StopSignal"] = c.stop
		image := w.build(name, config, c.flags...)
		w.must("podman", "run", "-d", "--name", name, "--runtime", "krun-sim", "--network", "host", image)
		w.awaitLog(t, name, "ready")
		for _, sig := range []string{"HUP", "QUIT", "USR2", "WINCH"} {
			w.must("podman", "kill", "--signal", sig, name)
		}
		if strings.Contains(c.want, "HUP") {
			w.awaitLog(t, name, "got HUP")
		}
		w.stop(name)
		code := strings.TrimSpace(w.must("podman", "inspect", "--format", "{{.State.ExitCode}}", name))
		if logs := w.must("podman", "logs", name); logs != c.want || code != c.code {
			t.Errorf("%s: status %s, %q, expected %s, %q", name, code, logs, c.code, c.want)
		}
		w.must("podman", "rm", name)
	}
}

// awaitLog waits until want is in the log of a container, however slow the
// machine: as long as the container runs. One that hangs ends with the test
// binary's own time limit, which names it.
func (w *world) awaitLog(t *testing.T, name, want string) {
	t.Helper()
	for running := true; running; {
		running = w.run("podman", "inspect", "--format", "{{.State.Running}}", name).stdout == "true\n"
		if eventuallyWithin(10*time.Second, func() bool { return strings.Contains(w.run("podman", "logs", name).stdout, want) }) {
			return
		}
	}
	t.Fatalf("%q never appeared: %s", want, w.run("podman", "logs", name))
}

// stop asks a container to end, for as long as that may take: what does not obey
// is killed in the end, and lacks its last words and its status.
func (w *world) stop(name string) {
	w.t.Helper()
	w.must("podman", "stop", "-t", strconv.Itoa(int(patience.Seconds())), name)
}

func (w *world) ccrunRun(t *testing.T) {
	runtime := "krun-sim"
	image := w.build("run", shell(`echo out; echo err >&2; trap 'exit 9' TERM; [ -z "$WAIT" ] || :; exit 3`))
	cid := filepath.Join(w.dir, "cid")
	r := w.run("ccrun", "run", "--rm", "--cidfile", cid, "--runtime", runtime, "--network", "host", image)
	if r.code != 3 || !strings.Contains(r.stdout, "out") {
		t.Fatal(r)
	}
	if again := w.run("ccrun", "run", "--rm", "--cidfile", cid, "--runtime", runtime, image); again.code != 125 || !strings.Contains(again.stderr, "cidfile") {
		t.Fatal(again)
	}
	if ps := w.must("podman", "ps", "-aq", "--filter", "ancestor="+image); ps != "" {
		t.Fatalf("containers left: %s", ps)
	}
	w.ccrunSignal(t, runtime, "host", w.build("run-signal", signalled()))
}

// signalled is a workload that ends by SIGTERM.
func signalled() map[string]any {
	return shell(`trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 1 & wait $!; done`)
}

func (w *world) ccrunSignal(t *testing.T, runtime, network, image string) {
	cmd := w.command("ccrun", "run", "--rm", "--name", "sig-"+runtime, "--runtime", runtime, "--network", network, image)
	var out servertest.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(func() bool { return strings.Contains(out.String(), "ready") })
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 || !strings.Contains(out.String(), "bye") {
		t.Fatalf("status %d: %s", code, out.String())
	}
}

// rotated changes a workload's disk key: until the commit both images boot,
// afterwards the old one gets no key that opens it.
func (w *world) rotated(t *testing.T) {
	old, now := w.build("rotated", shell("echo running")), "localhost/rotated-now"
	var rotation struct {
		Rotation string `json:"rotation"`
	}
	out := w.must("ccrun", "workload", "rotate", "--keep-old", "--format", "json", "rotated", old, now)
	if err := json.Unmarshal([]byte(out), &rotation); err != nil || rotation.Rotation == "" {
		t.Fatalf("no rotation in %s (%v)", out, err)
	}
	boots := func(image string) bool { return strings.Contains(w.podman(image).stdout, "running") }
	// The old one as every image does, or the new one as afterwards: for a soak.
	if !boots(now) || soaking() && !boots(old) {
		t.Fatal("before the commit, one of the images does not boot")
	}
	w.must("ccrun", "workload", "rotate", "--commit", rotation.Rotation, "rotated")
	if boots(old) || soaking() && !boots(now) {
		t.Fatal("after the commit, the new image does not boot or the old one still does")
	}
}

// tamper creates a container, lets change alter the files of its root, and
// starts it: what a hostile host does.
func (w *world) tamper(t *testing.T, image string, change func(root string)) result {
	t.Helper()
	id := strings.TrimSpace(w.must("podman", "create", "--runtime", "krun-sim", "--network", "host", image))
	defer w.run("podman", "rm", "-f", id)
	root := strings.TrimSpace(w.must("podman", "mount", id))
	change(root)
	w.must("podman", "umount", id)
	return w.run("podman", "start", "-a", id)
}

// flip inverts one byte of a file.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

// room writes to a scratch area of the default's size; to one of another, and to
// one in memory, as TestScratch does, in a soak.
func (w *world) room(t *testing.T) {
	t.Helper()
	for name, c := range map[string]struct {
		flags           []string
		atLeast, atMost int // MiB free
	}{
		"room-default": {nil, 7500, 8192}, // BTRFS keeps whole chunks for metadata
		"room-asked":   {[]string{"--scratch", "256m"}, 128, 256},
		"room-memory":  {[]string{"--scratch", "0"}, 100, 256},
	} {
		if name != "room-default" && !soaking() {
			continue
		}
		script := `df -m / | tail -n1; dd if=/dev/urandom of=/x bs=1M count=30 2>/dev/null && sync && cmp /x /x && ls -l /x`
		r := w.podman(w.build(name, shell(script), c.flags...))
		fields := strings.Fields(r.stdout)
		if r.code != 0 || len(fields) < 4 {
			t.Fatal(r)
		}
		free, err := strconv.Atoi(fields[3])
		if err != nil || free < c.atLeast || free > c.atMost {
			t.Errorf("%s: %d MiB free, expected %d to %d: %v", name, free, c.atLeast, c.atMost, err)
		}
	}
}

// TestHostileHost is what a host can do to the files it holds. The secret must
// never be printed, but by the last one, which has its server back.
func TestHostileHost(t *testing.T) {
	w := newWorld(t)
	const secret = "the-workload-ran"
	image := w.build("victim", shell("echo "+secret+"; cat /etc/passwd >/dev/null"))
	other := w.build("other", shell("echo other"))
	otherRoot := w.copyRoot(t, other)
	for name, c := range map[string]struct {
		change func(t *testing.T, root string)
		want   string // in the output
	}{
		"initrd byte changed": {func(t *testing.T, root string) { flip(t, filepath.Join(root, "initrd.img"), 4) }, "ccrun explain"},
		"other workload's disk": {func(t *testing.T, root string) {
			copyFile(t, filepath.Join(otherRoot, "disk.img"), filepath.Join(root, "disk.img"))
		}, "ccrun-init"},
		"other workload's initrd": {func(t *testing.T, root string) {
			copyFile(t, filepath.Join(otherRoot, "initrd.img"), filepath.Join(root, "initrd.img"))
		}, "ccrun-init"},
		"more memory": {func(t *testing.T, root string) {
			replaceInFile(t, filepath.Join(root, "krun-sev.json"), `"ram_mib":512`, `"ram_mib":768`)
		}, "ccrun explain"},
		"footer gone":        {func(t *testing.T, root string) { truncate(t, filepath.Join(root, "disk.img"), -4096) }, "ccrun-init"},
		"disk header zeroed": {func(t *testing.T, root string) { zero(t, filepath.Join(root, "disk.img"), 0, 65536) }, "ccrun-init"},
		"disk empty":         {func(t *testing.T, root string) { truncate(t, filepath.Join(root, "disk.img"), 0) }, ""},
	} {
		// Siblings of these, of TestHostileHeaders and TestHostileFooter: for a soak.
		if slices.Contains([]string{"more memory", "footer gone", "disk header zeroed", "disk empty"}, name) && !soaking() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			r := w.tamper(t, image, func(root string) { c.change(t, root) })
			out := r.stdout + r.stderr
			if r.code == 0 || strings.Contains(out, secret) || strings.Contains(out, "panic") || !strings.Contains(out, c.want) {
				t.Fatal(r)
			}
		})
	}
	t.Run("ciphertext flipped", func(t *testing.T) { w.flippedData(t, image, secret) })
	t.Run("what cannot start", func(t *testing.T) { w.discreet(t) })
	t.Run("revoked", func(t *testing.T) {
		w.must("ccrun", "workload", "revoke", "other")
		if r := w.podman(other); r.code != 77 || strings.Contains(r.stdout, "other\n") || strings.Contains(r.stdout+r.stderr, "trying again") {
			t.Fatal(r)
		}
	})
	t.Run("refused by its own policy", func(t *testing.T) { w.refusedByPolicy(t, secret) })
	t.Run("server away at boot", func(t *testing.T) { w.serverAway(t, image, secret) })
}

// serverAway starts a guest without a server, and the server later: the guest
// says what it waits for, and then runs. Meanwhile one that was built impatient
// gives up, and one without an end to its wait is stopped at once.
func (w *world) serverAway(t *testing.T, image, secret string) {
	impatient := w.build("impatient", shell("echo "+secret), "--attest-wait", "2s")
	w.stopServer()
	start := func(name string) {
		w.must("podman", "run", "-d", "--name", name, "--runtime", "krun-sim", "--network", "host", image)
		if !eventually(func() bool { return strings.Contains(w.run("podman", "logs", name).stderr, "trying again in") }) {
			t.Fatalf("does not say that it waits: %s", w.run("podman", "logs", name))
		}
	}
	start("waits") // all that the others take: longer than a guest once had patience for
	if r := w.podman(impatient); r.code != 125 || strings.Contains(r.stdout, secret) ||
		!strings.Contains(r.stdout+r.stderr, gateway(t, w.firmware)) || !strings.Contains(r.stdout+r.stderr, "within 2s") {
		t.Error(r)
	}
	start("stopped")
	w.stop("stopped")
	if code := w.must("podman", "inspect", "--format", "{{.State.ExitCode}}", "stopped"); code != "143\n" {
		t.Errorf("a waiting guest was stopped with status %s: %s", code, w.run("podman", "logs", "stopped"))
	}
	w.startServer()
	if code := strings.TrimSpace(w.must("podman", "wait", "waits")); code != "0" || !strings.Contains(w.run("podman", "logs", "waits").stdout, secret) {
		t.Fatalf("status %s: %s", code, w.run("podman", "logs", "waits"))
	}
}

var explainCommand = regexp.MustCompile(`ccrun explain ([0-9a-z]{16})`)

// refusedByPolicy boots a workload whose own rules refuse the machine: the
// owner is told by which.
func (w *world) refusedByPolicy(t *testing.T, secret string) {
	file := filepath.Join(w.dir, "policy.json")
	write(t, file, []byte(`{"snp":{"forbid_products":["Genoa"]},"cel":[{"name":"turin","expression":"claims.snp.product == \"Turin\"","hint":"rent newer machines"}]}`))
	r := w.podman(w.build("ruled", shell("echo "+secret), "--policy", file))
	number := explainCommand.FindStringSubmatch(r.stdout + r.stderr)
	if r.code == 0 || strings.Contains(r.stdout, secret) || number == nil || strings.Contains(r.stdout+r.stderr, "Turin") {
		t.Fatal(r)
	}
	out := w.must("ccrun", "explain", number[1])
	for _, want := range []string{"denied", "\ncel:turin failed\n", "\nproduct failed\n", "asked by  the policy of the workload\n", "hint      rent newer machines\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// discreet starts what cannot start: the host learns where and of which class,
// and nothing of what is in the configuration.
func (w *world) discreet(t *testing.T) {
	for name, c := range map[string]struct {
		change func(config map[string]any)
		code   int
		want   string
	}{
		"missing-program": {func(c map[string]any) { c["Entrypoint"] = []string{"codename-tool"} }, 127, "finding the program: not-found: "},
		"missing-path":    {func(c map[string]any) { c["Entrypoint"] = []string{"/opt/codename/tool"} }, 127, "finding the program: not-found: "},
		"no-program":      {func(c map[string]any) { c["Entrypoint"] = []string{"/etc/passwd"} }, 126, "finding the program: not-executable: "},
	} {
		if name == "missing-path" && !soaking() { // as the other that is missing
			continue
		}
		config := shell("echo codename ran")
		config["Env"] = []string{"PATH=/opt/codename/bin", "CODENAME=codename"}
		c.change(config)
		r := w.podman(w.build(name, config, "--logs", "none"))
		out := r.stdout + r.stderr
		if r.code != c.code || !strings.Contains(out, "ccrun-init: starting the workload: "+c.want) || strings.Contains(out, "odename") {
			t.Errorf("%s: %s", name, r)
		}
	}
}

// flippedData changes every sector of the files: reads must fail with an
// I/O error, not return other bytes.
func (w *world) flippedData(t *testing.T, image, secret string) {
	r := w.tamper(t, image, func(root string) {
		disk := filepath.Join(root, "disk.img")
		info, err := os.Stat(disk)
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(3 << 20); off < info.Size()-65536; off += 4 << 10 {
			flip(t, disk, off)
		}
	})
	if r.code == 0 || strings.Contains(r.stdout, secret) || !strings.Contains(r.stdout+r.stderr, "damaged: the disk's content does not verify") {
		t.Fatal(r)
	}
}

// copyRoot is a copy of an image's files.
func (w *world) copyRoot(t *testing.T, image string) string {
	t.Helper()
	id := strings.TrimSpace(w.must("podman", "create", image))
	defer w.run("podman", "rm", "-f", id)
	root := strings.TrimSpace(w.must("podman", "mount", id))
	defer w.run("podman", "umount", id)
	to := filepath.Join(w.dir, "copy-"+filepath.Base(image))
	if out, err := exec.Command("cp", "-a", root, to).CombinedOutput(); err != nil {
		t.Fatalf("copying: %v: %s", err, out)
	}
	return to
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, b)
}

func replaceInFile(t *testing.T, path, old, now string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %s: %s", path, old, b)
	}
	write(t, path, []byte(strings.Replace(string(b), old, now, 1)))
}

// truncate sets a file's size, from the end when negative.
func truncate(t testing.TB, path string, size int64) {
	t.Helper()
	if size < 0 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func zero(t *testing.T, path string, offset int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, n), offset); err != nil {
		t.Fatal(err)
	}
}
