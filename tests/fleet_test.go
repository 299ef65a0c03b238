package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFleetRolls: hosts go from one firmware to the next, as docs/operations.md has
// it typed: no image is built again, and none is touched. Before the update a guest
// on the next firmware is denied; then both run side by side; in the end the old
// one is denied.
func TestFleetRolls(t *testing.T) {
	w := newWorld(t)
	next := w.hostsWith(t, w.anotherFirmware(t))
	image := w.build("fleet", shell("echo under way"))
	starts := func(hosts *world, on string, want bool) {
		t.Helper()
		r := hosts.podman(image)
		if ran := r.code == 0 && r.stdout == "under way\n"; ran != want || !want && r.code != 77 {
			t.Errorf("%s, expected to run: %v; %s", on, want, r)
		}
	}
	starts(next, "the next firmware, before the update", false)
	w.must("ccrun", "workload", "update", "fleet", "--firmware", next.firmware)
	starts(w, "the old firmware, side by side", true)
	starts(next, "the next firmware", true)
	w.must("ccrun", "workload", "update", "fleet", "--firmware", next.firmware, "--not-after", "1s")
	time.Sleep(2 * time.Second) // the validity that was asked for
	starts(w, "the old firmware, which is over", false)
	if out := w.must("ccrun", "audit"); strings.Count(out, "workload.update") != 2 {
		t.Errorf("the updates are not audited: %s", out)
	}
}

// anotherFirmware is the simulator's with another command line.
func (w *world) anotherFirmware(t *testing.T) string {
	t.Helper()
	dir := w.mkdir("next-firmware")
	entries, err := os.ReadDir(w.firmware)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		copyFile(t, filepath.Join(w.firmware, e.Name()), filepath.Join(dir, e.Name()))
	}
	replaceInFile(t, filepath.Join(dir, "firmware.json"), `no_timer_check`, `no_timer_check no_timer_check`)
	return dir
}

// hostsWith is w on hosts that have another firmware.
func (w *world) hostsWith(t *testing.T, firmware string) *world {
	t.Helper()
	next := w.hostsOf(t, "CCRUN_SIM_FIRMWARE="+w.firmware, "CCRUN_SIM_FIRMWARE="+firmware)
	next.firmware = firmware
	return next
}

// hostsOf is w on hosts whose configuration of Podman has now for old.
func (w *world) hostsOf(t *testing.T, old, now string) *world {
	t.Helper()
	name := "CONTAINERS_CONF_OVERRIDE"
	if os.Getenv(name) == "" {
		name = "CONTAINERS_CONF"
	}
	f, err := os.CreateTemp(w.dir, "*.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := f.Name()
	f.Close()
	copyFile(t, os.Getenv(name), conf)
	replaceInFile(t, conf, old, now)
	next := *w
	next.env = append(w.env[:len(w.env):len(w.env)], name+"="+conf)
	return &next
}
