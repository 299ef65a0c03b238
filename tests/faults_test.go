package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/servertest"
)

const canary = "CANARY-PLAINTEXT-OF-A-BUILD"

// bigSource writes an OCI image with a few MiB that a search would find.
func (w *world) bigSource(t *testing.T, name string, mib int) string {
	t.Helper()
	src := filepath.Join(w.dir, "src", name)
	content := bytes.Repeat(fmt.Appendf(nil, "%s %060d\n", canary, 7), mib<<20/88)
	writeOCI(t, src, shell("true"), []entry{dir("data", 0o755), file("data/secret", 0o600, content)})
	return src
}

// buildArgs is an offline build: no server is needed to be killed.
func (w *world) buildArgs(src, out string) []string {
	return []string{"build", "-q", "--tee", "sample", "--firmware", w.firmware, "--attest-url", w.url,
		"--attest-ca", filepath.Join(w.dir, "server/ca.pem"), "--no-register", "--record", out + ".record", "oci:" + src, "oci:" + out}
}

// assertClean fails when a build left plaintext or files of its own in dirs.
func (w *world) assertClean(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		out, _ := exec.Command("grep", "-rlF", canary, d).Output()
		if len(out) > 0 {
			t.Errorf("plaintext left in %s", out)
		}
	}
	left, _ := filepath.Glob(filepath.Join(w.dir, "tmp", "*ccrun*"))
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestBuildFaults kills, starves and doubles builds.
func TestBuildFaults(t *testing.T) {
	w := newWorld(t)
	t.Run("kill -9 at any moment", func(t *testing.T) { w.killedBuilds(t) })
	t.Run("signals at any moment", func(t *testing.T) { w.stoppedBuilds(t) })
	t.Run("disk full", func(t *testing.T) { w.fullDisk(t) })
	t.Run("two at once", func(t *testing.T) { w.twoBuilds(t) })
	t.Run("hostile layers", func(t *testing.T) { w.hostileLayers(t) })
}

// killedBuilds kills builds after growing times. Whatever is left holds no
// plaintext, and the same command then succeeds.
func (w *world) killedBuilds(t *testing.T) {
	src, out := w.bigSource(t, "big", 96), filepath.Join(w.dir, "killed")
	for delay := 20 * time.Millisecond; delay < 1500*time.Millisecond; delay = delay * 3 / 2 {
		cmd := w.command("ccrun", w.buildArgs(src, out)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out2, _ := exec.Command("grep", "-rlF", canary, w.mkdir("tmp"), out).Output(); len(out2) > 0 {
			t.Fatalf("killed after %v: plaintext in %s", delay, out2)
		}
		if exists(out + ".record") {
			break // it had finished
		}
	}
	_ = os.Remove(out + ".record")
	time.Sleep(2100 * time.Millisecond) // a directory this young may be another build's
	if r := w.run("ccrun", w.buildArgs(src, out)...); r.code != 0 {
		t.Fatalf("building again after a kill: %s", r)
	}
	w.assertClean(t, out, filepath.Join(w.dir, "tmp"))
}

// stoppedBuilds asks builds to end: two as they start, the others at growing times
// after they have begun. Each ends with status 1 and leaves nothing, or had finished.
func (w *world) stoppedBuilds(t *testing.T) {
	src, stopped := w.bigSource(t, "big", 96), 0
	for i, delay := 0, 5*time.Millisecond; delay < time.Minute; i, delay = i+1, delay*3/2 {
		out := filepath.Join(w.dir, fmt.Sprint("stopped", i))
		cmd := w.command("ccrun", w.buildArgs(src, out)...)
		var stderr servertest.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		if i >= 2 {
			awaitBuild(cmd.Process.Pid, ended)
		}
		time.Sleep(delay)
		_ = cmd.Process.Signal([]os.Signal{syscall.SIGINT, syscall.SIGTERM}[i%2])
		<-ended
		code := cmd.ProcessState.ExitCode()
		if code == 0 && exists(out+".record") {
			if i < 2 { // a shell's background job ignores SIGINT until the program asks for it
				continue
			}
			break // it had finished
		}
		// Before the program has begun, a signal just ends it: status -1.
		if code != 1 && (code != -1 || i >= 2) || exists(out) || exists(out+".record") {
			t.Fatalf("stopped after %v: status %d: %s", delay, code, stderr.String())
		}
		if code == 1 {
			stopped++
		}
		w.assertClean(t, w.mkdir("tmp"))
	}
	if stopped < 3 {
		t.Errorf("only %d builds were stopped half way", stopped)
	}
}

// awaitBuild waits until a build has opened a file that has no name yet, or has
// ended.
func awaitBuild(pid int, ended <-chan struct{}) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	for {
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if to, _ := os.Readlink(filepath.Join(dir, f.Name())); strings.HasSuffix(to, " (deleted)") {
				return
			}
		}
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// fullDisk builds into file systems of growing size until one is enough, so
// that space ends in each phase: while layers are spooled, while the disk is
// written, at the last blobs.
func (w *world) fullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		need(t, fmt.Errorf("root, to mount a small tmpfs"))
	}
	src, small, failures := w.bigSource(t, "full", 24), w.mkdir("small-disk"), 0
	for mib := 1; ; mib = mib*4/3 + 1 {
		ok := w.buildOnDisk(t, src, small, mib)
		if ok {
			break
		}
		if failures++; mib > 1000 {
			t.Fatal("never enough")
		}
	}
	if failures < 6 {
		t.Errorf("only %d disks were too small", failures)
	}
}

// buildOnDisk builds with all files on a tmpfs and tells whether that was
// large enough. If not, nothing may be left on it.
func (w *world) buildOnDisk(t *testing.T, src, small string, mib int) bool {
	t.Helper()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Unmount(small, 0) }()
	cmd := w.command("ccrun", w.buildArgs(src, filepath.Join(small, "out"))...)
	cmd.Env = append(cmd.Env, "TMPDIR="+small)
	out, err := cmd.CombinedOutput()
	if found, _ := exec.Command("grep", "-rlF", canary, small).Output(); len(found) > 0 {
		t.Errorf("%d MiB: plaintext in %s", mib, found)
	}
	if err == nil {
		return true
	}
	var left []string
	_ = filepath.WalkDir(small, func(path string, d os.DirEntry, _ error) error {
		if d.Type().IsRegular() {
			left = append(left, path)
		}
		return nil
	})
	if !strings.Contains(string(out), "no space left") || len(left) > 0 || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%d MiB: %v: %s; left %v", mib, err, out, left)
	}
	return false
}

func (w *world) twoBuilds(t *testing.T) {
	src := w.bigSource(t, "two", 16)
	var wg sync.WaitGroup
	results := make([]result, 2)
	for i := range results {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i] = w.run("ccrun", w.buildArgs(src, filepath.Join(w.dir, fmt.Sprint("two", i)))...)
		}()
	}
	wg.Wait()
	for i, r := range results {
		if r.code != 0 {
			t.Errorf("build %d: %s", i, r)
		}
		w.must("ccrun", "inspect", "oci:"+filepath.Join(w.dir, fmt.Sprint("two", i)))
	}
}

// hostileLayers tries to write outside the image: what is built must not
// hold or touch anything of the host.
func (w *world) hostileLayers(t *testing.T) {
	victim := filepath.Join(w.dir, "victim-file")
	write(t, victim, []byte("untouched"))
	for name, layer := range map[string][]entry{
		"dotdot":           {file("../../../../../../.."+victim, 0o644, []byte("overwritten"))},
		"absolute":         {file(victim, 0o644, []byte("overwritten"))},
		"through symlink":  {symlink("out", w.dir), file("out/victim-file", 0o644, []byte("overwritten"))},
		"absolute symlink": {symlink("etc", "/etc"), file("etc/ccrun-was-here", 0o644, []byte("x"))},
	} {
		src := filepath.Join(w.dir, "src", strings.ReplaceAll(name, " ", "-"))
		writeOCI(t, src, shell("true"), layer)
		r := w.run("ccrun", w.buildArgs(src, src+"-out")...)
		b, err := os.ReadFile(victim)
		if err != nil || string(b) != "untouched" || exists("/etc/ccrun-was-here") {
			t.Fatalf("%s: escaped: %s", name, r)
		}
		if r.code != 0 && !strings.HasPrefix(r.stderr, "ccrun: ") || strings.Contains(r.stderr, "panic") {
			t.Errorf("%s: %s", name, r)
		}
	}
}

// TestHostileFooter gives the agent footers that lie.
func TestHostileFooter(t *testing.T) {
	w := newWorld(t)
	image := w.build("footer", shell("echo ran"))
	for name, length := range map[string]uint64{"0 bytes": 0, "1 MiB longer": 1<<20 + 200, "all ones": ^uint64(0), "negative": 1 << 63} {
		t.Run(name, func(t *testing.T) {
			r := w.tamper(t, image, func(root string) { patchFooterLength(t, filepath.Join(root, "disk.img"), length) })
			if r.code == 0 || strings.Contains(r.stdout, "ran") || !strings.Contains(r.stdout+r.stderr, "footer") || strings.Contains(r.stdout, "panic") {
				t.Fatal(r)
			}
		})
	}
}

func patchFooterLength(t *testing.T, disk string, length uint64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, length), info.Size()-8); err != nil {
		t.Fatal(err)
	}
}

// TestKilledMachine kills QEMU and the VMM: the container must end, and
// nothing may stay (newWorld's clean-up looks).
func TestKilledMachine(t *testing.T) {
	w := newWorld(t)
	image := w.build("killed", shell("echo up; while :; do sleep 1; done"))
	for _, victim := range []string{"qemu-system-x86", "ccrun-sim", "conmon"} {
		name := "killed-" + victim
		w.must("podman", "run", "-d", "--name", name, "--runtime", "krun-sim", "--network", "host", image)
		w.awaitLog(t, name, "up")
		pid := strings.TrimSpace(w.must("podman", "inspect", "--format", "{{.State.Pid}} {{.State.ConmonPid}}", name))
		killNamed(t, victim, pid)
		if victim == "conmon" {
			w.must("podman", "rm", "-f", "-t", "1", name)
			continue
		}
		code := strings.TrimSpace(w.must("podman", "wait", name))
		if code == "0" {
			t.Errorf("%s killed: status 0", victim)
		}
		w.must("podman", "rm", name)
	}
}

// killNamed kills the process of that name among the container's: "PID
// CONMON" are its first process and its monitor.
func killNamed(t *testing.T, name, pids string) {
	t.Helper()
	pid, conmon, _ := strings.Cut(pids, " ")
	target := pid
	switch name {
	case "conmon":
		target = conmon
	case "qemu-system-x86":
		out, _ := exec.Command("pgrep", "-P", pid).Output()
		target = strings.TrimSpace(strings.SplitN(string(out), "\n", 2)[0])
	}
	if out, err := exec.Command("kill", "-9", target).CombinedOutput(); err != nil {
		t.Fatalf("killing %s (%q): %v: %s", name, target, err, out)
	}
}
