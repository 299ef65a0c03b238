package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/krun"
)

// reproduced is what two builds of the same must have in common.
type reproduced struct {
	Digest       string `json:"digest"`
	Registration struct {
		Identity  string          `json:"identity_digest"`
		Footer    string          `json:"footer_digest"`
		Reference json.RawMessage `json:"reference_values"`
	} `json:"registration"`
}

// TestReproducibleElsewhere runs ccrun as two people would, who have nothing
// in common but source, options and disk key: other place of the program and
// of the source, other files beside it, other user's environment.
func TestReproducibleElsewhere(t *testing.T) {
	w := newWorld(t)
	layers := [][]entry{
		{dir("data", 0o755), file("data/a", 0o640, []byte("lower")), file("data/b", 0o600, []byte(strings.Repeat("b", 9000)))},
		{file("data/.wh.b", 0o600, nil), symlink("data/l", "a"), file("data/a", 0o444, []byte("upper"))},
	}
	here, there := filepath.Join(w.dir, "src/here"), filepath.Join(w.dir, "elsewhere/else/src")
	writeOCI(t, here, shell("true"), layers...)
	writeOCI(t, there, shell("false"), layers[:1]...) // an image of another's, that shares a layer
	index, err := os.ReadFile(filepath.Join(there, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	writeOCI(t, there, shell("true"), layers...)
	addUnrelated(t, there, index)
	w.must("skopeo", "copy", "-q", "oci:"+here, "containers-storage:localhost/here:1")
	bin := filepath.Join(w.dir, "elsewhere/bin")
	for _, name := range []string{"ccrun", "ccrun-init"} {
		copyFile(t, filepath.Join(w.bin, name), filepath.Join(bin, name))
		if err := os.Chmod(filepath.Join(bin, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	key := filepath.Join(w.dir, "disk-key")
	write(t, key, []byte(strings.Repeat("5a", 32)))
	for _, fs := range krun.Filesystems() {
		t.Run(fs, func(t *testing.T) {
			a := w.reproduce(t, w.bin, "oci:"+here, fs, key, "umask 022", "TZ=UTC", "LC_ALL=C", "SOURCE_DATE_EPOCH=1700000000")
			b := w.reproduce(t, bin, "oci:"+there+":app", fs, key, "umask 077; cd /", "TZ=Asia/Kolkata", "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8",
				"HOME="+w.mkdir("home"), "TMPDIR="+w.mkdir("other-tmp"), "GOMAXPROCS=1", "GOGC=20", "SOURCE_DATE_EPOCH=1700000000")
			if string(marshal(t, a)) != string(marshal(t, b)) {
				t.Errorf("here %s\nelsewhere %s", marshal(t, a), marshal(t, b))
			}
			c := w.reproduce(t, w.bin, "containers-storage:localhost/here:1", fs, key, "umask 027", "SOURCE_DATE_EPOCH=1700000000")
			if c.Registration.Identity != a.Registration.Identity || string(c.Registration.Reference) != string(a.Registration.Reference) {
				t.Errorf("layout %s\nstorage %s", marshal(t, a), marshal(t, c))
			}
			d := w.reproduce(t, w.bin, "oci:"+here, fs, key, "umask 022", "SOURCE_DATE_EPOCH=1700000001")
			if d.Registration.Identity == a.Registration.Identity {
				t.Error("another time gives the same identity: the test sees nothing")
			}
			t.Logf("%s: %s", fs, marshal(t, a))
		})
	}
}

// reproduce builds with the ccrun in bin, in a shell that first does setup.
func (w *world) reproduce(t *testing.T, bin, src, fs, key, setup string, env ...string) (r reproduced) {
	t.Helper()
	out := t.TempDir()
	args := []string{"build", "-q", "--format", "json", "--tee", "sample", "--firmware", w.firmware, "--attest-url", w.url,
		"--attest-ca", filepath.Join(w.dir, "server/ca.pem"), "--no-register", "--record", filepath.Join(out, "record"),
		"--reproducible", "--workload-id", "again", "--passphrase-file", key, "--fs", fs, src, "oci:" + filepath.Join(out, "image")}
	cmd := exec.Command("sh", append([]string{"-c", setup + `; exec "$@"`, "sh", filepath.Join(bin, "ccrun")}, args...)...)
	cmd.Env = append(append([]string{}, w.env...), env...)
	var stderr servertest.Buffer
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || r.Digest == "" || r.Registration.Identity == "" || len(r.Registration.Reference) < 10 {
		t.Fatalf("%v: %s%s", err, b, stderr.String())
	}
	return r
}

// addUnrelated puts the image of another index before that of the layout in
// dir, which gets the name "app".
func addUnrelated(t *testing.T, dir string, index []byte) {
	t.Helper()
	path := filepath.Join(dir, "index.json")
	mine, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all, more struct {
		SchemaVersion int              `json:"schemaVersion"`
		Manifests     []map[string]any `json:"manifests"`
	}
	if err := json.Unmarshal(mine, &all); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(index, &more); err != nil {
		t.Fatal(err)
	}
	for i, m := range [][]map[string]any{all.Manifests, more.Manifests} {
		m[0]["annotations"] = map[string]string{"org.opencontainers.image.ref.name": []string{"app", "another"}[i]}
	}
	all.Manifests = append(more.Manifests, all.Manifests...)
	write(t, path, marshal(t, all))
}
