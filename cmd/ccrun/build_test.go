package main

import (
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

func TestParseMemoryMiB(t *testing.T) {
	for in, want := range map[string]uint{
		"512": 512, "2g": 2048, "2GiB": 2048, "2G": 2048, "768m": 768, "1.5g": 1536,
		"": 0, "x": 0, "-1": 0, "100k": 0, "1b": 0, "99999999999": 0,
	} {
		got, err := parseMemoryMiB(in)
		if want == 0 && face.Status(err) != face.Misused {
			t.Errorf("%q: %d, %v, expected a usage error", in, got, err)
		}
		if want != 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v, expected %d", in, got, err, want)
		}
	}
}

func TestAttestWait(t *testing.T) {
	for in, want := range map[string]uint32{"forever": 0, "1s": 1, "90s": 90, "30m": 1800, "72h": 259200} {
		if got, err := attestWait(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, expected %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "0s", "-1s", "1500ms", "10", "Forever", "1000000000h", "1200000h"} {
		if _, err := attestWait(bad); face.Status(err) != face.Misused {
			t.Errorf("%q: %v, expected a usage error", bad, err)
		}
	}
}

func TestSourceDate(t *testing.T) {
	var o workload.Environment
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if err := setTime(&o); err != nil || o.Now != nil {
		t.Errorf("a time without one given: %v", err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	if err := setTime(&o); err != nil || !o.Now().Equal(time.Unix(86400, 0)) {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"now", "-1", "1e9", "99999999999"} {
		t.Setenv("SOURCE_DATE_EPOCH", bad)
		if err := setTime(&o); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

// TestEnvAllowKeepsCommas: cli would split the rule in two.
func TestEnvAllowKeepsCommas(t *testing.T) {
	var l stringList
	for _, s := range []string{"A=x{1,3}", "B"} {
		if err := l.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if len(l) != 2 || l[0] != "A=x{1,3}" {
		t.Errorf("%q", l)
	}
}

func TestDiskSize(t *testing.T) {
	for in, want := range map[string][2]int64{
		"": {}, "2g": {2 << 30}, "32MiB": {32 << 20}, "5000": {8192}, "+64m": {0, 64 << 20}, "+1": {0, 4096},
	} {
		var o workload.DiskOptions
		if err := diskSize(&o, in); err != nil || o.SizeBytes != want[0] || o.FreeBytes != want[1] {
			t.Errorf("%q: size %d, room %d, %v, expected %v", in, o.SizeBytes, o.FreeBytes, err, want)
		}
	}
	for _, in := range []string{"+", "++1m", "-1m", "+-1m", "0", "x", "1m+"} {
		if err := diskSize(&workload.DiskOptions{}, in); err == nil {
			t.Errorf("%q: accepted", in)
		}
	}
}

// TestMoveHint: who builds into local storage learns how an image leaves it
// with its digest.
func TestMoveHint(t *testing.T) {
	if got := moveHint("containers-storage:localhost/app:1"); !strings.Contains(got, "skopeo copy --preserve-digests containers-storage:localhost/app:1 docker://") {
		t.Errorf("hint %q", got)
	}
	for _, image := range []string{"docker://registry.example/app:1", "oci:dir:app"} {
		if got := moveHint(image); got != "" {
			t.Errorf("%s: hint %q", image, got)
		}
	}
}
