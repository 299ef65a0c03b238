package tests

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"crypto/tls"
)

// world is a trust anchor, a Podman storage and a simulated platform of a
// test's own, under one temporary directory.
type world struct {
	t                  testing.TB
	dir, bin, firmware string
	url                string // of the server, as the guest sees it
	env                []string
	server             *exec.Cmd
	serverLog          bytes.Buffer
	port               string
	serve              []string // more flags of the server
	blamed             []string // why the test has failed, to be said last
}

// result is what a command did.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("status %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

func newWorld(t testing.TB) *world { return newWorldWith(t) }

// newWorldWith is newWorld with more flags for the server.
func newWorldWith(t testing.TB, serve ...string) *world {
	t.Helper()
	endToEnd(t)
	for _, tool := range []string{"podman", "qemu-system-x86_64", "crun"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	w := &world{t: t, dir: t.TempDir(), bin: binDir(t), firmware: os.Getenv("CCRUN_SIM_FIRMWARE"), serve: serve}
	write(t, filepath.Join(w.dir, "storage.conf"), fmt.Appendf(nil, "[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(w.dir, "storage"), filepath.Join(w.dir, "run")))
	w.port = freePort(t)
	w.url = "https://" + gateway(t, w.firmware) + ":" + w.port
	w.env = append(os.Environ(),
		"PATH="+w.bin+":"+os.Getenv("PATH"),
		"CONTAINERS_STORAGE_CONF="+filepath.Join(w.dir, "storage.conf"),
		"CCRUN_SERVER=https://127.0.0.1:"+w.port,
		"CCRUN_TOKEN_FILE="+filepath.Join(w.dir, "token"),
		"CCRUN_CA="+filepath.Join(w.dir, "server/ca.pem"),
		"TMPDIR="+w.mkdir("tmp"))
	w.must("ccrun-sim", "init")
	w.must("ccrun-sim", "attest-server", "init", "--data", filepath.Join(w.dir, "server"),
		"--name", "127.0.0.1", "--name", gateway(t, w.firmware), "--name", rigGateway, "--token-out", filepath.Join(w.dir, "token"))
	w.startServer()
	t.Cleanup(w.close)
	return w
}

// gateway is where a simulated machine with that firmware finds the network
// that QEMU runs in.
func gateway(t testing.TB, firmware string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(firmware, "firmware.json"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`ccrun\.net=[^, "]*,([^, "]+),`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no gateway in %s", b)
	}
	return string(m[1])
}

func (w *world) mkdir(name string) string {
	p := filepath.Join(w.dir, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (w *world) startServer() {
	w.t.Helper()
	w.startServerAs("serve", w.serve...)
}

// startServerAs has a command of attest-server listen where guests know the
// server to be.
func (w *world) startServerAs(command string, flags ...string) {
	w.t.Helper()
	w.server = exec.Command(filepath.Join(w.bin, "ccrun-sim"), append([]string{"attest-server", command,
		"--data", filepath.Join(w.dir, "server"), "--listen", "127.0.0.1:" + w.port}, flags...)...)
	w.server.Env, w.server.Stdout, w.server.Stderr = w.env, &w.serverLog, &w.serverLog
	if err := w.server.Start(); err != nil {
		w.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answers := func() bool {
		resp, err := client.Get("https://127.0.0.1:" + w.port + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}
	if !eventually(answers) {
		w.stopServer()
		w.t.Fatalf("server did not start:\n%s", w.serverLog.String())
	}
}

func (w *world) stopServer() {
	if w.server == nil {
		return
	}
	_ = w.server.Process.Kill()
	_ = w.server.Wait()
}

// close removes everything and checks that nothing of ours is left over.
func (w *world) close() {
	w.run("podman", "rm", "-fa", "-t", "1")
	w.stopServer()
	if left := processesNaming(w.dir); len(left) > 0 {
		w.blame("left over: %s", strings.Join(left, "\n"))
	}
	_ = exec.Command("umount", filepath.Join(w.dir, "storage/overlay")).Run()
	if w.t.Failed() {
		w.t.Logf("server log:\n%s", w.serverLog.String())
	}
	for _, why := range w.blamed {
		w.t.Error(why)
	}
}

// blame fails the test for what the server's log, which may be long, is not to
// follow.
func (w *world) blame(format string, args ...any) {
	w.blamed = append(w.blamed, fmt.Sprintf(format, args...))
}

// processesNaming lists processes with dir in their command line. conmon and
// QEMU get a moment to end.
func processesNaming(dir string) (left []string) {
	eventually(func() bool {
		left = nil
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
				left = append(left, strings.ReplaceAll(string(b), "\x00", " "))
			}
		}
		return len(left) == 0
	})
	return left
}

func (w *world) command(name string, arg ...string) *exec.Cmd {
	if p := filepath.Join(w.bin, name); exists(p) {
		name = p
	}
	cmd := exec.Command(name, arg...)
	cmd.Env = w.env
	return cmd
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

func (w *world) run(name string, arg ...string) result {
	w.t.Helper()
	cmd := w.command(name, arg...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%s: %v", name, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must runs a command that has to succeed and returns its standard output.
func (w *world) must(name string, arg ...string) string {
	w.t.Helper()
	r := w.run(name, arg...)
	if r.code != 0 {
		w.t.Fatalf("%s %s: %s", name, strings.Join(arg, " "), r)
	}
	return r.stdout
}

// build makes the workload image localhost/NAME from busybox and config.
func (w *world) build(name string, config map[string]any, extra ...string) string {
	w.t.Helper()
	return w.buildLayers(name, config, [][]entry{busyboxLayer(w.t)}, extra...)
}

func (w *world) buildLayers(name string, config map[string]any, layers [][]entry, extra ...string) string {
	w.t.Helper()
	src := filepath.Join(w.dir, "src", name)
	writeOCI(w.t, src, config, layers...)
	args := append([]string{"build", "-q", "--tee", "sample", "--attest-url", w.url,
		"--attest-ca", filepath.Join(w.dir, "server/ca.pem"), "--workload-id", name}, extra...)
	if !slices.Contains(extra, "--firmware") {
		args = append(args, "--firmware", w.firmware)
	}
	image := "localhost/" + name
	w.must("ccrun", append(args, "oci:"+src, "containers-storage:"+image)...)
	return image
}

// shell is the configuration of an image that runs a shell script.
func shell(script string) map[string]any {
	return map[string]any{"Entrypoint": []string{"/bin/sh", "-c"}, "Cmd": []string{script}, "Env": []string{"PATH=/bin", "GREETING=hello"}}
}

// podman runs an image in the simulated TEE.
func (w *world) podman(image string, flags ...string) result {
	w.t.Helper()
	args := append([]string{"run", "--rm", "--runtime", "krun-sim", "--network", "host"}, flags...)
	return w.run("podman", append(args, image)...)
}
