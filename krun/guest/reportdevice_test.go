package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes files, by their content, and symbolic links, by "-> TARGET".
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		path = filepath.Join(root, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "-> "); ok && err == nil {
			err = os.Symlink(target, path)
		} else if err == nil {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestReportsLeft: each way to a report that a step could have left open is
// seen by itself, for SEV and for TDX; what a kernel with the driver built in
// keeps is told apart from it.
func TestReportsLeft(t *testing.T) {
	clean := map[string]string{
		"/proc/modules":                "virtio_rng 16384 0 - Live 0x0\nmysev_guest 1 0 - Live 0x0\n",
		"/proc/self/mounts":            "proc /proc proc rw 0 0\n",
		"/proc/self/fd/2":              "-> /dev/console",
		"/sys/class/misc/rfkill":       "",
		"/sys/kernel/config/unrelated": "",
	}
	const port = "/sys/class/virtio-ports/vport2p1/name"
	for name, x := range map[string]struct {
		more         map[string]string
		ways, kernel string
	}{
		"nothing":            {nil, "", ""},
		"SEV's node":         {map[string]string{"/dev/sev-guest": ""}, "/dev/sev-guest", ""},
		"TDX's node":         {map[string]string{"/dev/tdx_guest": ""}, "/dev/tdx_guest", ""},
		"a broken node":      {map[string]string{"/dev/tdx_guest": "-> nowhere"}, "/dev/tdx_guest", ""},
		"SEV's module":       {map[string]string{"/proc/modules": "sev_guest 16384 0 - Live 0x0\n"}, "module sev_guest", ""},
		"TDX's module":       {map[string]string{"/proc/modules": "x 1\ntdx_guest 16384 0 - Live 0x0\n"}, "module tdx_guest", ""},
		"configfs":           {map[string]string{"/proc/self/mounts": "configfs /sys/kernel/config configfs rw 0 0\n"}, "configfs on /sys/kernel/config", ""},
		"configfs elsewhere": {map[string]string{"/proc/self/mounts": "none /x configfs rw 0 0\n"}, "configfs on /x", ""},
		"configfs-tsm":       {map[string]string{"/sys/kernel/config/tsm/report/x": ""}, "/sys/kernel/config/tsm", ""},
		"open SEV":           {map[string]string{"/proc/self/fd/7": "-> /dev/sev-guest"}, "descriptor 7 of /dev/sev-guest", ""},
		"open, deleted TDX":  {map[string]string{"/proc/self/fd/7": "-> /dev/tdx_guest (deleted)"}, "descriptor 7 of /dev/tdx_guest (deleted)", ""},
		"the port's node":    {map[string]string{port: "io.ccrun.report\n", "/dev/vport2p1": ""}, "/dev/vport2p1", ""},
		"the port open":      {map[string]string{port: "io.ccrun.report\n", "/proc/self/fd/9": "-> /dev/vport2p1 (deleted)"}, "descriptor 9 of /dev/vport2p1 (deleted)", ""},
		"another port":       {map[string]string{port: "io.ccrun.control\n", "/dev/vport2p1": "", "/proc/self/fd/9": "-> /dev/vport2p1"}, "", ""},
		"SEV built in": {map[string]string{"/sys/class/misc/sev-guest/dev": "10:124\n", reportDriver + "/sev-guest": "-> ../x", reportDriver + "/module": "-> ../y", reportDriver + "/uevent": ""},
			"", "/sys/class/misc/sev-guest " + reportDriver + "/sev-guest"},
		"TDX built in": {map[string]string{"/sys/class/misc/tdx_guest/dev": "10:123\n"}, "", "/sys/class/misc/tdx_guest"},
	} {
		files := map[string]string{}
		for _, m := range []map[string]string{clean, x.more} {
			for path, content := range m {
				files[path] = content
			}
		}
		got, err := reportsLeft(tree(t, files))
		if err != nil || strings.Join(got.ways, " ") != x.ways || strings.Join(got.kernel, " ") != x.kernel {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestReportsLeftNeedsEyes: who cannot look does not find that nothing is left.
func TestReportsLeftNeedsEyes(t *testing.T) {
	for _, files := range []map[string]string{{}, {"/proc/self/mounts": ""}, {"/proc/self/fd/1": "-> x"}} {
		if got, err := reportsLeft(tree(t, files)); err == nil {
			t.Errorf("%v: %+v", files, got)
		}
	}
}

// TestWhatIsLeftEndsTheBoot: a way to a report does, what the kernel keeps does
// not.
func TestWhatIsLeftEndsTheBoot(t *testing.T) {
	for _, r := range []remains{{}, {kernel: []string{"a class"}}} {
		if err := r.refusal(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []remains{{ways: []string{"/dev/sev-guest"}}, {ways: []string{"a", "b"}, kernel: []string{"c"}}} {
		if err := r.refusal(); err == nil || !strings.Contains(err.Error(), r.ways[0]) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
