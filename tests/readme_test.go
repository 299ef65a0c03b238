package tests

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestREADME types the commands of the README's "Use it", in order, into a
// shell. Only names are replaced: of the host, of paths, of images.
func TestREADME(t *testing.T) {
	endToEnd(t)
	w := &world{t: t, dir: t.TempDir(), bin: binDir(t)}
	port := freePort(t)
	writeOCI(t, filepath.Join(w.dir, "nginx"), map[string]any{"Entrypoint": []string{"/bin/app"}},
		[]entry{dir("bin", 0o755), file("bin/app", 0o755, []byte("app"))})
	w.stockLibrary(t)
	// Not a subprocess of the shell: the README's server runs on a machine of
	// its own.
	steps := readmeCommands(t)
	server := w.startREADMEServer(t, steps, port)
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	for _, s := range steps {
		if s.status < 0 {
			continue
		}
		script := "cd " + w.dir + "; export PATH=" + w.bin + ":$PATH\n" + exports(steps, s) + s.command
		cmd := exec.Command("bash", "-euc", w.replace(script, port))
		cmd.Env = append(os.Environ(), "TMPDIR="+w.mkdir("tmp"), "CCRUN_SIM_ROOT=", "HOME="+w.dir, "XDG_CONFIG_HOME=")
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != s.status || !strings.Contains(string(out), s.want) {
			t.Errorf("%s: status %d, expected %d with %q\n%s", s.command, got, s.status, s.want, out)
		}
	}
}

// step is one command of the README; status -1 means that it is not run here.
type step struct {
	command string
	status  int
	want    string // in its output
}

// expectations is what each kind of command must do on a machine without a
// TEE. A command of the README without an entry fails the test.
var expectations = []struct {
	prefix string
	status int
	want   string
}{
	{"make demo", -1, ""}, // TestDemo
	{"make test", -1, ""}, // we are in it
	{"make install", -1, ""},
	{"export ", -1, ""}, // prepended to the others
	{"attest-server init", -1, ""},
	{"attest-server serve", -1, ""},
	{"ccrun login", 0, "is in use"},
	{"ccrun build", 0, "registered:  yes"},
	{"ccrun doctor", 4, "fix:"},
	{"ccrun run", 125, "hint"},
	{"ccrun quadlet", 0, ""},
	{"ccrun explain", 1, "not_found"},
}

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

func readmeCommands(t *testing.T) (steps []step) {
	t.Helper()
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range shellBlock.FindAllStringSubmatch(string(b), -1) {
		for _, line := range strings.Split(strings.ReplaceAll(m[1], "\\\n", " "), "\n") {
			if line = strings.TrimSpace(line); line != "" {
				steps = append(steps, expect(t, line))
			}
		}
	}
	if len(steps) < 10 {
		t.Fatalf("README has only %d commands", len(steps))
	}
	return steps
}

func expect(t *testing.T, line string) step {
	t.Helper()
	for _, e := range expectations {
		if strings.HasPrefix(line, e.prefix) {
			return step{line, e.status, e.want}
		}
	}
	t.Fatalf("no expectation for the README's command %q", line)
	return step{}
}

// exports is the environment that the README set before s.
func exports(steps []step, until step) string {
	var b strings.Builder
	for _, s := range steps {
		if s == until {
			break
		}
		if strings.HasPrefix(s.command, "export ") {
			b.WriteString(s.command + "\n")
		}
	}
	return b.String()
}

func (w *world) replace(s, port string) string {
	return strings.NewReplacer(
		"keys.example.com:8443", "127.0.0.1:"+port, "--listen :8443", "--listen 127.0.0.1:"+port, "keys.example.com", "127.0.0.1",
		"/var/lib/attest-server", w.dir+"/attest-server",
		"/usr/lib64/libkrunfw-sev.so.5", w.dir+"/libkrunfw-sev.so.5",
		"docker://docker.io/library/nginx:1.28", "oci:"+w.dir+"/nginx",
		"docker://registry.example/shop/nginx-cw:1", "oci:"+w.dir+"/nginx-cw",
		"/etc/systemd/system/", w.dir+"/",
		"SESSION", "nosuchsession",
	).Replace(s)
}

// startREADMEServer runs the README's init, hands its token and CA to the
// owner, and starts its serve.
func (w *world) startREADMEServer(t *testing.T, steps []step, port string) *exec.Cmd {
	t.Helper()
	var initialise, serve string
	for _, s := range steps {
		switch {
		case strings.HasPrefix(s.command, "attest-server init"):
			initialise = w.replace(s.command, port)
		case strings.HasPrefix(s.command, "attest-server serve"):
			serve = w.replace(s.command, port)
		}
	}
	initialize := exec.Command("bash", "-euc", "PATH="+w.bin+":$PATH; "+initialise)
	initialize.Dir = w.dir // the README's token and ca.pem lie where its reader works
	if out, err := initialize.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", initialise, err, out)
	}
	copyFile(t, filepath.Join(w.dir, "attest-server/ca.pem"), filepath.Join(w.dir, "ca.pem"))
	cmd := exec.Command("bash", "-euc", "PATH="+w.bin+":$PATH; exec "+serve)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listens := func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if !eventually(listens) {
		t.Fatalf("%s: does not listen", serve)
	}
	return cmd
}

// stockLibrary stands in for an installed libkrunfw-sev: a library of the same
// form around bytes of no meaning, which is all that building takes.
func (w *world) stockLibrary(t *testing.T) {
	t.Helper()
	fw := w.mkdir("fw")
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise)
	write(t, filepath.Join(fw, "qboot.bin"), noise[:65536])
	write(t, filepath.Join(fw, "kernel.bin"), noise)
	write(t, filepath.Join(fw, "firmware.json"), fmt.Appendf(nil,
		`{"version":1,"kind":"libkrun","kernel":"kernel.bin","qboot":"qboot.bin","kernel_load":%d}`, 0x1000000))
	cmd := exec.Command(filepath.Join(w.bin, "ccrun"), "firmware", "build", "--from", fw,
		"--agent", filepath.Join(w.bin, "ccrun-init"), "--output", filepath.Join(w.dir, "libkrunfw-sev.so.5"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("firmware build: %v: %s", err, out)
	}
}

// TestInstall installs into a directory of its own and runs what is there.
func TestInstall(t *testing.T) {
	endToEnd(t)
	dest := t.TempDir()
	cmd := exec.Command("make", "-C", "..", "install", "DESTDIR="+dest, "PREFIX=/usr")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v: %s", err, out)
	}
	for _, f := range []string{"bin/ccrun", "bin/attest-server", "bin/ccrun-sim", "libexec/ccrun/ccrun-init", "libexec/ccrun/krun", "libexec/ccrun/krun-sim"} {
		if !exists(filepath.Join(dest, "usr", f)) {
			t.Errorf("%s is not installed", f)
		}
	}
	// Installed under that name it is the runtime, which hands this to crun.
	out, err := exec.Command(filepath.Join(dest, "usr/libexec/ccrun/krun"), "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "crun version ") {
		t.Errorf("krun --version: %v: %s", err, out)
	}
}

// TestDemo is `make demo`.
func TestDemo(t *testing.T) {
	endToEnd(t)
	bin := binDir(t)
	cache, err := filepath.Abs("../.cache")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "ccrun-sim"), "demo", "--bin", bin, "--cache", cache)
	cmd.Env = append(os.Environ(), "CCRUN_DEMO_PORT="+freePort(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"readable only inside the attested VM", "TEE is simulated", "measurement failed"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the demo's output", want)
		}
	}
	if n := strings.Count(string(out), "-> refused, as it must be"); n != 4 {
		t.Errorf("%d of 4 attacks refused\n%s", n, out)
	}
}

// TestMemoryDemo is `ccrun-sim demo memory`: the host finds the canary where no
// TEE is, and nothing says that a simulated one would keep it from that.
func TestMemoryDemo(t *testing.T) {
	endToEnd(t)
	bin := binDir(t)
	cache, err := filepath.Abs("../.cache")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "ccrun-sim"), "demo", "memory", "--bin", bin, "--cache", cache)
	cmd.Env = append(os.Environ(), "CCRUN_DEMO_PORT="+freePort(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	found := regexp.MustCompile(`(?m)^[1-9][0-9]* copies in ([0-9]+) MiB of [1-9][0-9]* processes$`).FindAllStringSubmatch(string(out), -1)
	if len(found) != 2 {
		t.Errorf("found %d times, expected in the container and in the VM", len(found))
	}
	for _, want := range []string{"TEE is simulated", "-> FOUND: a VM alone", "on its disk: not found", "NOT SHOWN", "0 copies"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in the output", want)
		}
	}
}
