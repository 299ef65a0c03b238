package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Edits of the agent, each of which takes one barrier away between a workload and
// a report device that its kernel does not give up.
type edit struct{ file, old, new string }

var (
	giveMknod = edit{"privileges.go", "unix.CAP_SETPCAP, unix.CAP_SETUID,", "unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_MKNOD,"}
	noFilter  = edit{"filter_amd64.go", "{unix.SYS_MKNOD, noDevice(1)}, {unix.SYS_MKNODAT, noDevice(2)},", ""}
	noGroup   = edit{"devicegroup.go", "if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {", "if err == nil || errors.Is(err, unix.ENOSYS) {"}
	mayOpen   = edit{"sprout.go", "unix.MS_NODEV", "0"}
)

// TestReportDeviceByNumber: the simulator's report port stays in the kernel, as SEV's
// and TDX's drivers do that are built in. A workload with CAP_MKNOD, which no agent
// gives, finds its number and tries to make and open a node of it. Of the three
// barriers each is tried as the last one; without any, the node opens, or the test
// would see nothing. What it is worth then: TestDemo's attack "second-release".
func TestReportDeviceByNumber(t *testing.T) {
	w := newWorld(t)
	// The simulator's first port is the report's, and port 0 is the console's.
	script := `set -- $(grep virtio-portsdev /proc/devices); mknod /node c $1 1 && echo made; ( : </node ) && echo opened; echo END`
	for _, c := range []struct {
		name  string
		edits []edit
		want  string // of stdout
		says  string // on stderr
	}{
		{"filter", []edit{giveMknod}, "END\n", "not permitted"},
		{"devices", []edit{giveMknod, noFilter}, "END\n", "not permitted"},
		{"nodev", []edit{giveMknod, noFilter, noGroup}, "made\nEND\n", "ermission denied"},
		{"none", []edit{giveMknod, noFilter, noGroup, mayOpen}, "made\nopened\nEND\n", ""},
	} {
		// The first and the last each time, those between in a soak.
		if len(c.edits)%3 != 1 && !soaking() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r := w.podman(w.build("barrier-"+c.name, shell(script), "--scratch", "128MiB", "--agent", editedAgent(t, c.edits)))
			if r.code != 0 || r.stdout != c.want || !strings.Contains(r.stderr, c.says) {
				t.Errorf("%s\nexpected %q", r, c.want)
			}
		})
	}
}

// editedAgent builds the agent with some of its source changed.
func editedAgent(t *testing.T, edits []edit) string {
	t.Helper()
	dir, source := t.TempDir(), map[string]string{}
	for _, e := range edits {
		file, err := filepath.Abs(filepath.Join("../krun/guest", e.file))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := source[file]; !ok {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source[file] = string(b)
		}
		if !strings.Contains(source[file], e.old) {
			t.Fatalf("%s has no %q", e.file, e.old)
		}
		source[file] = strings.ReplaceAll(source[file], e.old, e.new)
	}
	replace := map[string]string{}
	for file, text := range source {
		replace[file] = filepath.Join(dir, filepath.Base(file))
		write(t, replace[file], []byte(text))
	}
	overlay, agent := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "ccrun-init")
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	write(t, overlay, b)
	build := exec.Command("go", "build", "-overlay", overlay, "-ldflags", "-s -w", "-o", agent, "../cmd/ccrun-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v: %s", err, out)
	}
	return agent
}
