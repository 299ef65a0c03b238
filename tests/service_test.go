package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
)

// asks is what the workload of these tests asks its guest's service.
var asks = []string{"/cdh/resource/acme/db/password", "/cdh/resource/acme/db/none", "/cdh/resource/acme/db/waits", "/cdh/resource/acme/db",
	"/aa/token?token_type=kbs", "/aa/evidence?runtime_data=challenge"}

// TestService: a workload built with --cdh asks on both sockets for what is its
// own and gets that, and with the server away an answer that says so; all that keeps
// it from the report device is there as ever.
func TestService(t *testing.T) {
	w := newWorld(t)
	w.askService(t, "", func(layers []entry) result {
		c := map[string]any{"Entrypoint": append(append([]string{"/bin/probe", "service"}, asks...), "again")}
		image := w.buildLayers("asks", c, [][]entry{busyboxLayer(t), layers}, "--cdh")
		name := "asks-" + w.port
		w.must("podman", "run", "-d", "--name", name, "--runtime", "krun-sim", "--network", "host", image)
		w.awaitLog(t, name, "waits to be told")
		w.stopServer()
		w.stop(name)
		w.startServer()
		r := w.run("podman", "logs", name)
		for _, socket := range []string{"tcp", "unix"} {
			if !strings.Contains(r.stdout, "later "+socket+" /cdh/resource/acme/db/password 503 ") {
				t.Errorf("with the server away: %s", r)
			}
		}
		return r
	})
}

// serviceOfLibkrun is TestService where every socket of the workload's is TSI's.
func (w *rigWorld) serviceOfLibkrun(t *testing.T) {
	w.askService(t, "46", func(layers []entry) result {
		src := filepath.Join(w.dir, "src/asks")
		writeOCI(t, src, map[string]any{"Entrypoint": append([]string{"/bin/probe", "service"}, asks...)}, append(busyboxLayer(t), layers...))
		return w.podman(w.buildFrom("asks", "oci:"+src, "--cdh"))
	})
}

func (w *world) askService(t *testing.T, domain string, run func([]entry) result) {
	value := filepath.Join(w.dir, "value")
	write(t, value, []byte("the secret\n"))
	w.must("ccrun-sim", "attest-server", "tenant", "set", "other", "--data", filepath.Join(w.dir, "server"))
	w.must("ccrun", "resource", "set", "acme/db/password", "--from-file", value, "--workload", "asks")
	w.must("ccrun", "resource", "set", "acme/db/waits", "--from-file", value, "--workload", "asks", "--approval", "other")
	w.must("ccrun", "resource", "set", "acme/db/none", "--from-file", value, "--workload", "another")
	r := run(probeLayer(t, w.dir))
	if r.code != 0 || strings.Contains(r.stdout, "YES:") || !strings.Contains(r.stdout, "listening true") || !strings.Contains(r.stdout, "written false") || !strings.HasSuffix(r.stdout, "done\n") {
		t.Fatalf("%s", r)
	}
	for _, socket := range []string{"tcp", "unix"} {
		for _, want := range []string{
			`/cdh/resource/acme/db/password 200 "the secret\n"`, "/cdh/resource/acme/db/none 404 ", "/cdh/resource/acme/db/waits 403 ",
			"/cdh/resource/acme/db 400 ", "/aa/token?token_type=kbs 200 ", "/aa/evidence?runtime_data=challenge 200 ",
		} {
			if !strings.Contains(r.stdout, socket+" "+want) {
				t.Errorf("%s: no %s", socket, want)
			}
		}
	}
	if domain != "" && !strings.Contains(r.stdout, "tcp domain "+domain+" ") {
		t.Errorf("the client's socket is not TSI's, so that this shows nothing")
	}
	w.checkEvidence(t, r.stdout)
	if t.Failed() {
		t.Log(r)
	}
	audit := w.must("ccrun-sim", "attest-server", "audit", "export", "--data", filepath.Join(w.dir, "server"))
	for _, want := range []string{"secrets.release", "resource.refuse"} {
		if !strings.Contains(audit, want) {
			t.Errorf("audit lacks %s", want)
		}
	}
}

// checkEvidence: what the workload got is Evidence over its own data, of a kind
// that no server releases anything for.
func (w *world) checkEvidence(t *testing.T, stdout string) {
	t.Helper()
	_, rest, _ := strings.Cut(stdout, "tcp /aa/evidence?runtime_data=challenge 200 ")
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		t.Fatalf("evidence: %v", err)
	}
	text, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatal(err)
	}
	p, err := evidence.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want, err := kbs.GuestBinding("asks", []byte("challenge"))
	if got := p.Evidence.Report; err != nil || len(got) < 0x90 || !slices.Equal(got[0x50:0x90], want[:]) {
		t.Errorf("report data of %d bytes, expected %x", len(got), want)
	}
}

// TestFraudDetection runs the example of two data owners.
func TestFraudDetection(t *testing.T) {
	w := newWorld(t)
	for _, tool := range []string{"curl", "busybox"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	cmd := exec.Command("../examples/fraud-detection/run.sh")
	cmd.Env = append(w.env, "CCRUN_ATTEST_URL="+w.url, "CCRUN_FIRMWARE="+w.firmware, "PORT="+freePort(t))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "t-1002 +2.56 suspicious\nt-1003 -1.56\n") || strings.Count(string(out), "not released") != 3 {
		t.Errorf("%v: %s", err, out)
	}
	for _, path := range []string{"model.csv", "transactions.csv"} {
		if b, err := os.ReadFile(filepath.Join("../examples/fraud-detection", path)); err != nil || len(b) == 0 || strings.Contains(w.serverLog.String(), string(b)) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
