package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/servertest"
)

// logReader is an owner who reads encrypted logs: the file with the private key,
// and the build's flags.
func (w *world) logReader(t *testing.T, name string) (identity string, flags []string) {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	identity = filepath.Join(w.dir, name+".key")
	write(t, identity, []byte(id.String()+"\n"))
	return identity, []string{"--logs", "encrypted", "--log-recipient", id.Recipient().String()}
}

// TestSealedLogs: the host sees lines of text and no word of the workload's; the
// owner gets both streams byte for byte, the exit status and what went wrong.
func TestSealedLogs(t *testing.T) {
	w := newWorld(t)
	key, sealed := w.logReader(t, "owner")
	t.Run("both streams, and nothing for the host", func(t *testing.T) { w.sealedStreams(t, key, sealed) })
	if soaking() {
		t.Run("what went wrong is for the owner", func(t *testing.T) { w.sealedError(t, key, sealed) })
	}
	t.Run("a killed VM, and one more boot", func(t *testing.T) { w.sealedKill(t, key, sealed) })
	t.Run("a host that alters", func(t *testing.T) { w.sealedTampering(t, key) })
}

const logCanary = "canary-0815"

func (w *world) sealedStreams(t *testing.T, key string, sealed []string) {
	image := w.build("sealed", shell(`i=0; while [ $i -lt 2000 ]; do echo "`+logCanary+` out $i"; echo "`+logCanary+` err $i" >&2; i=$((i+1)); done
head -c 300000 /dev/zero; printf '\377\200\0[ccl1.'; exit 7`), sealed...)
	r := w.run("podman", "run", "--name", "sealed", "--runtime", "krun-sim", "--network", "host", image)
	if r.code != 7 || strings.Contains(r.String(), logCanary) || !strings.Contains(r.stdout, "[ccl1.") {
		t.Fatalf("the host reads %.2000s", r)
	}
	if host := w.run("podman", "logs", "sealed").String(); strings.Contains(host, logCanary) || strings.Contains(host, "canary") {
		t.Errorf("podman logs has the canary")
	}
	var out, errs strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&out, "%s out %d\n", logCanary, i)
		fmt.Fprintf(&errs, "%s err %d\n", logCanary, i)
	}
	out.WriteString(strings.Repeat("\x00", 300_000) + "\xff\x80\x00[ccl1.")
	got := w.run("ccrun", "logs", "-q", "sealed", "--identity", key)
	if got.code != 0 || got.stdout != out.String() || got.stderr != errs.String() {
		t.Fatalf("streams of %d and %d bytes, expected %d and %d; status %d, %.500s", len(got.stdout), len(got.stderr), out.Len(), errs.Len(), got.code, got.stderr)
	}
	for stream, want := range map[string]string{"stdout": out.String(), "stderr": errs.String()} {
		if got := w.run("ccrun", "logs", "-q", "sealed", "--identity", key, "--stream", stream); got.code != 0 || got.stdout != want || got.stderr != "" {
			t.Errorf("%s: %d bytes, expected %d; %.500s", stream, len(got.stdout), len(want), got.stderr)
		}
	}
	if got := w.run("ccrun", "logs", "--identity", key, "--since", "1ns", "sealed"); got.code != 0 || got.stdout != "" {
		t.Errorf("since now: %.500s", got)
	}
	text := w.must("ccrun", "logs", "sealed", "--identity", key, "--format", "json")
	d, ends := json.NewDecoder(strings.NewReader(text)), 0
	for d.More() {
		var e struct {
			Event string
			End   struct{ Status int }
		}
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Event == "end" && e.End.Status == 7 {
			ends++
		}
	}
	if ends != 1 {
		t.Errorf("%d ends with status 7 in %.300s", ends, text)
	}
	other, _ := w.logReader(t, "other")
	if got := w.run("ccrun", "logs", "sealed", "--identity", other); got.code != 1 || got.stdout != "" || !strings.Contains(got.stderr, "other recipients") {
		t.Errorf("another's key: %s", got)
	}
}

// sealedError: a program that is not there. The host learns the class, the owner
// its name.
func (w *world) sealedError(t *testing.T, key string, sealed []string) {
	c := shell("")
	c["Entrypoint"], c["Cmd"] = []string{"/opt/" + logCanary}, nil
	r := w.run("podman", "run", "--name", "failing", "--runtime", "krun-sim", "--network", "host", w.build("failing", c, sealed...))
	if r.code != 127 || strings.Contains(r.String(), logCanary) || !strings.Contains(r.String(), "not-found") {
		t.Errorf("the host reads %s", r)
	}
	if got := w.run("ccrun", "logs", "failing", "--identity", key); got.code != 0 || !strings.Contains(got.stderr, "/opt/"+logCanary) || !strings.Contains(got.stderr, "127") {
		t.Errorf("the owner reads %s", got)
	}
}

// sealedKill: of a VM that is killed all but the last second is there, and the
// next boot of the same container is told apart.
func (w *world) sealedKill(t *testing.T, key string, sealed []string) {
	image := w.build("ticking", shell(`i=0; while :; do echo "tick $i"; i=$((i+1)); sleep 0.1; done`), sealed...)
	w.must("podman", "run", "-d", "--name", "ticking", "--runtime", "krun-sim", "--network", "host", image)
	read := func() result { return w.run("ccrun", "logs", "ticking", "--identity", key) }
	follow, out, errs := w.command("ccrun", "logs", "-f", "ticking", "--identity", key), &servertest.Buffer{}, &servertest.Buffer{}
	follow.Stdout, follow.Stderr = out, errs
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	if !eventually(func() bool { return strings.Contains(out.String(), "tick 5\n") }) {
		t.Fatal(out, errs)
	}
	w.goneReader(t, "ticking", key)
	ticks := strings.Count(out.String(), "\n") + 10
	if !eventually(func() bool { return strings.Contains(out.String(), fmt.Sprintf("tick %d\n", ticks)) }) {
		t.Fatal(out, errs)
	}
	if r := read(); r.code != 0 {
		t.Errorf("a running guest's log: %s", r)
	}
	before := time.Now()
	w.must("podman", "kill", "ticking")
	w.must("podman", "wait", "ticking")
	if err := follow.Wait(); err == nil || follow.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "the end of boot") || strings.Contains(out.String(), "[ccl1.") {
		t.Errorf("followed to its end: %v, %s", err, errs)
	}
	r := read()
	if r.code != 1 || !strings.Contains(r.stderr, "the end of boot") {
		t.Errorf("a killed guest's log: %s", r)
	}
	text := w.run("ccrun", "logs", "ticking", "--identity", key, "--format", "json").stdout
	times := regexp.MustCompile(`"time": "([^"]+)"`).FindAllStringSubmatch(text, -1)
	if last, err := time.Parse(time.RFC3339Nano, times[len(times)-1][1]); err != nil || before.Sub(last) > 3*time.Second {
		t.Errorf("killed at %s, last word at %s, %v", before, last, err)
	}
	w.must("podman", "start", "ticking")
	if !eventually(func() bool { return strings.Count(read().stdout, "tick 5\n") == 2 }) {
		t.Fatal(read())
	}
	if r := read(); r.code != 1 || strings.Count(r.stderr, "the end of boot") != 1 {
		t.Errorf("two boots: %s", r)
	}
}

// goneReader follows the log, and goes away: that ends, and nothing else does.
func (w *world) goneReader(t *testing.T, name, key string) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	follow := w.command("ccrun", "logs", "-f", name, "--identity", key)
	follow.Stdout = to
	if err := errors.Join(follow.Start(), to.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(from, make([]byte, len("tick 0\n")))
	if err := errors.Join(err, from.Close()); err != nil {
		t.Errorf("following: %v", err)
	}
	_ = follow.Wait() // or the test hangs
}

// sealedTampering alters the file in which Podman keeps the log.
func (w *world) sealedTampering(t *testing.T, key string) {
	path := strings.TrimSpace(w.must("podman", "inspect", "--format", "{{.HostConfig.LogConfig.Path}}", "sealed"))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, "ctr.log")
	read := func(text string) result {
		write(t, file, []byte(text))
		return w.run("ccrun", "logs", file, "--identity", key)
	}
	if r := read(string(raw)); r.code != 0 || !strings.Contains(r.stdout, logCanary+" out 1999\n") {
		t.Errorf("the log's file: %.500s", r)
	}
	lines := strings.SplitAfter(string(raw), "\n")
	middle := len(lines) / 2
	at := len(lines[middle]) - 20 // of the body
	altered := lines[middle][:at] + "AAAA" + lines[middle][at+4:]
	for name, c := range map[string]struct{ text, want string }{
		"a line out":     {strings.Join(append(append([]string{}, lines[:middle]...), lines[middle+2:]...), ""), "missing"},
		"a byte altered": {strings.Replace(string(raw), lines[middle], altered, 1), "altered"},
		"played twice":   {string(raw) + string(raw), "once more"},
	} {
		if r := read(c.text); r.code != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%s: status %d, %.600s", name, r.code, r.stderr)
		}
	}
}
