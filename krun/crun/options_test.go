package crun

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// plain is a container of which nothing was asked.
const plain = `{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["/entrypoint"],"cwd":"/","user":{"uid":0,"gid":0},` +
	`"env":["PATH=/bin","TERM=xterm"],"noNewPrivileges":false},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},` +
	`{"destination":"/etc/hosts","type":"bind","source":"/x"}],"linux":{"namespaces":[{"type":"network"}]},"annotations":{"other":"kept"}}`

// examples are one for each row: how the option shows in the specification,
// and what of it the user is told.
func examples() map[string]struct {
	path  string
	value any
	told  string
} {
	return map[string]struct {
		path  string
		value any
		told  string
	}{
		"--init":                              {"process args", []string{"/run/podman-init", "--", "/entrypoint"}, "an init of its own"},
		"--init's program":                    {"mounts", mount("/run/podman-init", "bind"), "mount /run/podman-init"},
		"arguments, --entrypoint":             {"process args", []string{"/entrypoint", "x"}, "measured identity"},
		"--tty":                               {"process terminal", true, "no terminal"},
		"--interactive":                       {"", nil, "no input"},
		"--env":                               {"process env", []string{"PATH=/bin", "SECRET=hidden"}, `variable "SECRET" does`},
		"--user, --group-add":                 {"process user", map[string]int{"uid": 1000, "gid": 1000}, "--user"},
		"--umask":                             {"process user umask", 0o77, "umask"},
		"--workdir":                           {"process cwd", "/srv", "--workdir"},
		"--cap-add, --cap-drop, --privileged": {"process capabilities", map[string][]string{"bounding": {"CAP_SYS_ADMIN", "CAP_NET_BIND_SERVICE"}}, "--cap-drop"},
		"the monitor's capabilities":          {"process capabilities", podmans(), "capabilities of the monitor"},
		"--security-opt no-new-privileges":    {"process noNewPrivileges", true, "no-new-privileges"},
		"the monitor's privileges":            {"process noNewPrivileges", false, "privileges of the monitor"},
		"--security-opt seccomp, label, apparmor": {"process selinuxLabel", "x:y", "confinement"},
		"--ulimit":                            {"process rlimits", []any{map[string]any{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 9}}, "--ulimit"},
		"--volume, --mount":                   {"mounts", mount("/data/.", "bind"), "mount /data is not visible inside the VM: `ccrun build --volume"},
		"--tmpfs":                             {"mounts", mount("/scratch", "tmpfs"), "mount /scratch is not"},
		"--secret":                            {"mounts", mount("/run/secrets/one", "bind"), "mount /run/secrets/one is not"},
		"--read-only-tmpfs":                   {"mounts", mount("/var/tmp", "tmpfs"), "mount /var/tmp is not"},
		"mounts.conf(5)":                      {"mounts", mount("/run/secrets", "bind"), "mount /run/secrets is not"},
		"--volume's propagation":              {"linux rootfsPropagation", "shared", "propagation"},
		"--read-only":                         {"root readonly", true, "read-only"},
		"--read-only's disk":                  {"root readonly", true, "disk is in a read-only"},
		"--shm-size":                          {"mounts", mount("/dev/shm", "tmpfs", "size=1m"), "/dev/shm"},
		"--add-host":                          {"mounts", []any{map[string]any{"destination": "/etc/hosts", "type": "bind", "source": "testdata/hosts"}}, "do not reach the workload: db, other names"},
		"--network host":                      {"linux namespaces", []map[string]string{{"type": "pid"}}, "the host's own loopback"},
		"--hostname":                          {"hostname", "h", `"h"`},
		"--sysctl":                            {"linux sysctl", map[string]string{"net.core.somaxconn": "9", "net.ipv4.ping_group_range": "0 0"}, "kernel: net.core.somaxconn"},
		"--device":                            {"linux devices", []any{map[string]any{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}}, "devices"},
		"--memory":                            {"linux resources memory", map[string]int{"limit": 64 << 20, "reservation": 1, "swap": 128 << 20}, "from 64 to 1024 MiB"},
		"--pids-limit":                        {"linux resources pids limit", 10, "raised to 128"},
		"--cpus, --cpuset-cpus, --cpu-shares": {"linux resources cpu", map[string]int{"quota": 9}, "processor time"},
		"krun.cpus":                           {"annotations krun.cpus", "4", "krun.cpus"},
		"krun.ram_mib":                        {"annotations krun.ram_mib", "4", "krun.ram_mib"},
		passtAnnotation:                       {"annotations krun.use_passt", "1", "without a network"},
		VariantAnnotation:                     {"annotations krun.variant", "aws-nitro", "expected sev"},
		HandlerAnnotation:                     {"annotations run.oci.handler", "krun", "run.oci.handler"},
		krun.LabelFirmware:                    {"annotations io.ccrun.firmware", "00", "io.ccrun.firmware"},
		krun.LabelPorts:                       {"annotations io.ccrun.ports", "80/tcp", "io.ccrun.ports"},
	}
}

// podmans is what Podman gives without being asked.
func podmans() map[string][]string {
	var names []string
	for _, c := range strings.Fields(podmansCapabilities) {
		names = append(names, "CAP_"+c)
	}
	return map[string][]string{"bounding": names, "effective": names}
}

func mount(destination, kind string, options ...string) []any {
	return []any{map[string]any{"destination": "/proc", "type": "proc", "source": "proc"},
		map[string]any{"destination": destination, "type": kind, "source": "s", "options": options}}
}

func machine(t *testing.T) *Machine {
	t.Helper()
	s, err := decode([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return &Machine{Spec: s, MemoryBytes: 1 << 30, Threads: 128}
}

// example is a machine of which only the option of row r was asked.
func example(t *testing.T, r row) (m *Machine, told string) {
	t.Helper()
	x, ok := examples()[r.option]
	if !ok {
		t.Fatalf("row %s has no example", r.option)
	}
	m = machine(t)
	m.Interactive = x.path == ""
	if m.Interactive {
		return m, x.told
	}
	if err := m.Set(x.value, strings.Fields(x.path)...); err != nil {
		t.Fatal(err)
	}
	return m, x.told
}

func encoded(t *testing.T, m *Machine) string {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestVerdicts tries every verdict on every row: whatever a row says, the
// runtimes do it.
func TestVerdicts(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range table() {
		if seen[r.option] {
			t.Errorf("%s: two rows", r.option)
		}
		seen[r.option] = true
		if r.given == nil {
			if r.krun != outside || r.sim != outside {
				t.Errorf("%s: a verdict on what no runtime is told", r.option)
			}
			continue
		}
		for _, v := range []verdict{refused, warned, dropped, outside, honoured, -1} {
			m, told := example(t, r)
			before := encoded(t, m)
			warnings, err := m.apply(r, v)
			said := strings.Join(warnings, "\n")
			if err != nil {
				said = err.Error()
			}
			if (err != nil) != (v <= refused) || strings.Contains(said, told) != (v <= warned) || strings.Contains(said, "hidden") {
				t.Errorf("%s, verdict %d: %q (%v)", r.option, v, warnings, err)
			}
			changed := encoded(t, m) != before
			if want := (v == warned || v == dropped) && r.drop != nil && r.option != "--interactive"; changed != want {
				t.Errorf("%s, verdict %d: specification changed %v, want %v", r.option, v, changed, want)
			}
			again, err := m.apply(r, v)
			if (v == warned || v == dropped) && r.drop != nil && len(again) != 0 && r.option != "the monitor's capabilities" {
				t.Errorf("%s: still there after it was taken out: %q (%v)", r.option, again, err)
			}
		}
	}
	for option := range maps.Keys(examples()) {
		if !seen[option] {
			t.Errorf("example of %s has no row", option)
		}
	}
}

// TestJudge looks at each row's verdict in each runtime from outside.
func TestJudge(t *testing.T) {
	for _, r := range table() {
		if r.given == nil {
			continue
		}
		for by, v := range map[Runtime]verdict{Krun: r.krun, QEMU: r.sim} {
			m, told := example(t, r)
			warnings, err := m.Judge(by)
			if (err != nil) != (v == refused) || strings.Contains(strings.Join(warnings, "\n"), told) != (v == warned) {
				t.Errorf("%s: runtime %d, verdict %d: %q (%v)", r.option, by, v, warnings, err)
			}
		}
	}
	for _, by := range []Runtime{Krun, QEMU} {
		m := machine(t)
		warnings, err := m.Judge(by)
		if err != nil || len(warnings) != 0 || !m.Process.NoNewPrivileges || len(m.Process.Capabilities.Bounding) != 0 {
			t.Errorf("nothing was asked: %q (%v), %s", warnings, err, encoded(t, m))
		}
		want := machine(t)
		if err := errors.Join(dropCapabilities(want), want.Set(true, "process", "noNewPrivileges")); err != nil || encoded(t, m) != encoded(t, want) {
			t.Errorf("nothing was asked, more than privileges changed: %s (%v)", encoded(t, m), err)
		}
	}
}

// TestArguments are refused in every form but the image's own.
func TestArguments(t *testing.T) {
	for line, ok := range map[string]bool{
		"/entrypoint": true, "/dev/init -- /entrypoint": true, "/run/podman-init -- /entrypoint": true,
		"/entrypoint foo": false, "sh": false, "/dev/init --": false, "": false,
	} {
		m := machine(t)
		if err := m.Set(strings.Fields(line), "process", "args"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Judge(QEMU); (err == nil) != ok || (err != nil && hint.Of(err) == "") {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// TestLimitsThatSuffice are left alone.
func TestLimitsThatSuffice(t *testing.T) {
	m := machine(t)
	for _, limit := range []string{`{"limit":1073741824,"swap":-1}`, `{"limit":-1}`, `{}`} {
		if err := set(m.members, jsonText(limit), []string{"linux", "resources", "memory"}); err != nil {
			t.Fatal(err)
		}
		if err := m.Set(4096, "linux", "resources", "pids", "limit"); err != nil {
			t.Fatal(err)
		}
		if given := append(memory(m), threads(m)...); len(given) != 0 {
			t.Errorf("%s: %q", limit, given)
		}
	}
	if err := m.Set(map[string]int{"limit": 1, "swap": -1}, "linux", "resources", "memory"); err != nil {
		t.Fatal(err)
	}
	if err := raiseMemory(m); err != nil || *m.resources().Memory.Swap != -1 || *m.resources().Memory.Limit != 1<<30 {
		t.Errorf("unlimited swap was limited: %+v (%v)", m.resources().Memory, err)
	}
}

type jsonText string

func (t jsonText) MarshalJSON() ([]byte, error) { return []byte(t), nil }

// TestPodmansOwn is what Podman writes without being asked: nothing to warn of.
func TestPodmansOwn(t *testing.T) {
	m := machine(t)
	m.ID = "c0ffee000000beef"
	for path, value := range map[string]any{
		"process user umask": 0o022, "process user additionalGids": []int{0}, "process capabilities": podmans(), "hostname": "c0ffee000000",
		"process rlimits": []any{map[string]any{"type": "RLIMIT_NOFILE", "hard": 1 << 20, "soft": 1 << 20}, map[string]any{"type": "RLIMIT_NPROC", "hard": 1 << 22, "soft": 1 << 22}},
		"linux sysctl":    map[string]string{"net.ipv4.ping_group_range": "0 0"},
		"mounts":          mount("/dev/shm", "tmpfs", "nosuid", "size=65536k"),
	} {
		if err := m.Set(value, strings.Fields(path)...); err != nil {
			t.Fatal(err)
		}
	}
	if warnings, err := m.Judge(Krun); err != nil || len(warnings) != 0 {
		t.Errorf("%q (%v)", warnings, err)
	}
}

// TestReadOnlyKeepsTheDisk: libkrun opens the disk for writing or not at all.
func TestReadOnlyKeepsTheDisk(t *testing.T) {
	m := machine(t)
	m.RootFS = "/bundle/rootfs"
	if err := m.Set(true, "root", "readonly"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Judge(Krun); err != nil || !m.Root.Readonly {
		t.Errorf("the container is no longer read-only (%v)", err)
	}
	if disk := m.Mounts[len(m.Mounts)-1]; disk.Destination != "/disk.img" || disk.Source != "/bundle/rootfs/disk.img" || !slices.Contains(disk.Options, "rw") {
		t.Errorf("the disk's mount is %+v", disk)
	}
}

// TestDocumentedTable: docs/podman-differences.md says of each row what the
// table says.
func TestDocumentedTable(t *testing.T) {
	b, err := os.ReadFile("../../docs/podman-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	words := map[verdict]string{refused: "refused", warned: "warned", dropped: "dropped", outside: "outside", honoured: "honoured"}
	for _, r := range table() {
		if line := "| `" + r.option + "` | " + words[r.krun] + " | " + words[r.sim] + " | "; !strings.Contains(string(b), line) {
			t.Errorf("no line %q", line)
		}
	}
}
