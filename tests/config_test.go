package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun"
)

// TestConfiguration: what a workload's owner sets at the key server reaches the
// process, and the host reads none of it; what the image was not built to take
// stops the guest, and its owner alone learns what that was.
func TestConfiguration(t *testing.T) {
	w := newWorld(t)
	t.Run("with a volume and a sealed log", func(t *testing.T) { w.allTogether(t) })
	image := w.build("configured", shell(`echo "level=$LEVEL greeting=$GREETING args=$0,$*"; test "$PASSWORD" = open-sesame`),
		"--env-allow", "LEVEL=debug|info", "--env-allow", "PASSWORD", "--args-allow")
	if r := w.podman(image); r.code != 1 || !strings.Contains(r.stdout, "level= greeting=hello args=/bin/sh,\n") {
		t.Errorf("nothing set: %s", r)
	}
	file := filepath.Join(w.dir, "shop.env")
	if err := os.WriteFile(file, []byte("# of the shop\nPASSWORD=open-sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `echo "level=$LEVEL args=$0,$*"; test "$PASSWORD" = open-sesame`
	w.must("ccrun", "workload", "config", "set", "configured", "--env", "LEVEL=debug", "--env-file", file, "--args", script, "--args", "me", "--args=--x=1 2")
	if r := w.podman(image); r.code != 0 || !strings.Contains(r.stdout, "level=debug args=me,--x=1 2\n") || strings.Contains(r.String(), "sesame") {
		t.Errorf("set: %s", r)
	}
	if out := w.must("ccrun", "workload", "config", "show", "configured"); !strings.Contains(out, "LEVEL PASSWORD") || strings.Contains(out, "sesame") || strings.Contains(out, "debug") {
		t.Errorf("show: %s", out)
	}
	for _, bad := range []string{"LEVEL=debugger", "LD_PRELOAD=/x", "A=B=C"} {
		if r := w.run("ccrun", "workload", "config", "set", "configured", "--env", bad); r.code == 0 || !strings.Contains(r.stderr, "--env-allow") {
			t.Errorf("%s: %s", bad, r)
		}
	}
	w.configureAnyhow("configured", `{"set":{"env":{"LD_PRELOAD":"/tmp/evil.so"}}}`)
	r := w.podman(image)
	number := regexp.MustCompile("ccrun explain ([0-9a-z]+)").FindStringSubmatch(r.stderr)
	if r.code == 0 || number == nil || !strings.Contains(r.stderr, "config-refused") || strings.Contains(r.String(), "LD_PRELOAD") {
		t.Fatalf("refused: %s", r)
	}
	if out := w.must("ccrun", "explain", number[1]); !strings.Contains(out, "variable LD_PRELOAD is set") || strings.Contains(out, "evil.so") {
		t.Errorf("explain: %s", out)
	}
	w.must("ccrun", "workload", "config", "rm", "configured", "--env", "LD_PRELOAD", "--args")
	if r := w.podman(image); r.code != 0 || !strings.Contains(r.stdout, "level=debug greeting=hello args=/bin/sh,\n") {
		t.Errorf("arguments removed: %s", r)
	}
	w.must("ccrun", "workload", "config", "rm", "configured")
	if soaking() {
		if r := w.podman(image); r.code != 1 || !strings.Contains(r.stdout, "level= ") {
			t.Errorf("removed: %s", r)
		}
	}
	audit := w.must("ccrun-sim", "attest-server", "audit", "export", "--data", filepath.Join(w.dir, "server"))
	for _, want := range []string{"config.set", "config.release", "config.remove", "guest.refuse"} {
		if !strings.Contains(audit, want) {
			t.Errorf("audit lacks %s", want)
		}
	}
}

// configureAnyhow sets what `ccrun workload config set` would refuse.
func (w *world) configureAnyhow(id, change string) {
	w.t.Helper()
	token, err := os.ReadFile(filepath.Join(w.dir, "token"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.must("curl", "-fsS", "--cacert", filepath.Join(w.dir, "server/ca.pem"), "-X", "PUT", "-H", "Authorization: Bearer "+strings.TrimSpace(string(token)),
		"-H", "Content-Type: application/json", "-d", change, "https://127.0.0.1:"+w.port+"/v1/workloads/"+id+"/config")
}

// together is of a workload that has a root that cannot be written, two volumes,
// one of them below a VOLUME of the image's, and a VOLUME named in another way.
const together = `echo "level=$LEVEL"; cat /data/had /srv/had /srv/kept/had; echo x 2>/dev/null >/x && echo root
for d in /data /srv /srv/kept; do [ -e $d/n ] && echo "$d found"; echo x >$d/n || echo "$d full"; done; sync`

// allTogether: configuration, sealed logs and volumes in one workload. Its volumes
// are not covered by what takes its VOLUMEs' writes.
func (w *world) allTogether(t *testing.T) {
	key, flags := w.logReader(t, "together")
	c := shell(together)
	c["Volumes"] = map[string]struct{}{"/data/": {}, "/srv": {}}
	layer := append(busyboxLayer(t), file("data/had", 0o644, []byte("data\n")), file("srv/had", 0o644, []byte("srv\n")), file("srv/kept/had", 0o644, []byte("kept\n")))
	flags = append(flags, "--read-only", "--env-allow", "LEVEL", "--volume", "data:/data,size=128m", "--volume", "kept:/srv/kept,size=128m")
	image := w.buildLayers("together", c, [][]entry{layer}, flags...)
	w.must("ccrun", "workload", "config", "set", "together", "--env", "LEVEL="+logCanary)
	volume := filepath.Join(w.dir, "volumes/together.vol")
	w.must("ccrun", "volume", "create", volume)
	for i, found := range []string{"", "/data found\n/srv/kept found\n"} {
		name := "together" + strconv.Itoa(i)
		r := w.run("podman", "run", "--name", name, "--runtime", "krun-sim", "--network", "host", "--annotation", krun.VolumesAnnotation+"="+volume, image)
		got := w.run("ccrun", "logs", "-q", name, "--identity", key)
		want := "level=" + logCanary + "\ndata\nsrv\nkept\n" + found
		if r.code != 0 || strings.Contains(r.String(), "canary") || got.code != 0 || got.stdout != want {
			t.Errorf("start %d: the host reads %s, the owner %s\nexpected %s", i+1, r, got, want)
		}
		w.run("podman", "rm", name)
	}
}
