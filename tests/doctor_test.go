package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun/doctor"
)

// TestDoctor: doctor judges what the runtime takes, here the rig's crun, libkrun
// and libkrunfw, and fails for the hardware alone.
func TestDoctor(t *testing.T) {
	w := inRig(t)
	if w == nil {
		return
	}
	w.env = append(w.env, "LD_LIBRARY_PATH="+w.rig)
	t.Logf("%s", w.run("ccrun", "doctor"))
	r := w.run("ccrun", "doctor", "--format", "json")
	var findings []doctor.Finding
	if err := json.Unmarshal([]byte(r.stdout), &findings); err != nil || r.code != 4 {
		t.Fatalf("%v: %s", err, r)
	}
	names := map[string]string{"config": "/etc/ccrun/krun.json", "crun": filepath.Join(w.rig, "shim"), "libkrun": w.rig,
		"firmware": filepath.Join(w.rig, "libkrunfw-sev.so.5"), "library": "ccrun", "runtime": "krun", "passt": "off"}
	for _, f := range findings {
		hardware := f.Check == "kvm" || f.Check == "tee"
		if (f.Status == doctor.Fail) != hardware || !strings.Contains(f.Got, names[f.Check]) {
			t.Errorf("%+v, expected %q", f, names[f.Check])
		}
		delete(names, f.Check)
	}
	if len(names) != 0 {
		t.Errorf("not looked at: %v", names)
	}
	if os.Getenv("CCRUN_INSIDE") == "" {
		return
	}
	for _, f := range findings {
		if f.Check == "podman" && f.Status != doctor.OK {
			t.Errorf("Podman of Debian 13: %+v", f)
		}
	}
}
