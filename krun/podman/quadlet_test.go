package podman

import (
	"strings"
	"testing"
)

// TestUnitTakesNothingForSuccess: under krun Podman sees status 0 of a guest
// that was refused its key; krun-sim carries 77, which is final.
func TestUnitTakesNothingForSuccess(t *testing.T) {
	for _, c := range []struct {
		unit      Unit
		has, lack string
	}{
		{Unit{Runtime: "krun"}, "\nRestart=always\nRestartSec=30\n", "RestartPreventExitStatus"},
		{Unit{Runtime: "/opt/libexec/krun"}, "\nRestart=always\n", "on-failure"},
		{Unit{Runtime: "krun"}, `"ccrun: exit status 77" is a refusal`, "StartLimitBurst"},
		{Unit{Runtime: "krun"}, "\nStartLimitIntervalSec=0\n", "%!"},
		{Unit{Runtime: "krun", Restart: "no"}, "\nRestart=no\n", "Restart=always"},
		{Unit{Runtime: "krun-sim"}, "\nRestart=on-failure\n", "cannot see"},
		{Unit{Runtime: "/opt/krun-sim"}, "\nRestartPreventExitStatus=77\n", "%!"},
	} {
		c.unit.Image = "registry.example/shop/fraud:1.2@sha256:0"
		text, err := c.unit.Render()
		if err != nil || !strings.Contains(text, c.has) || strings.Contains(text, c.lack) || !strings.Contains(text, "ContainerName=fraud\n") {
			t.Errorf("%+v: expected %q and no %q (%v) in\n%s", c.unit, c.has, c.lack, err, text)
		}
	}
}
