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
		{Unit{Runtime: "krun"}, "\nRestart=always\nRestartSec=30\n", "RestartSteps"},
		{Unit{Runtime: "/opt/libexec/krun"}, "\nRestart=always\n", "on-failure"},
		{Unit{Runtime: "krun"}, `"ccrun: exit status 77" is a refusal`, "StartLimitBurst"},
		{Unit{Runtime: "krun"}, `"ccrun: workload started"`, "%!"},
		{Unit{Runtime: "krun"}, "\n# WHAT THE WORKLOAD WRITES TO ITS ROOT IS LOST", "%!"},
		{Unit{Runtime: "krun"}, "\nStartLimitIntervalSec=0\n", "%!"},
		{Unit{Runtime: "krun"}, "\nTimeoutStartSec=infinity\n", "%!"},
		{Unit{Runtime: "krun", Restart: "no"}, "\nRestart=no\n", "Restart=always"},
		{Unit{Runtime: "krun", Systemd: 253}, "\nRestartSec=30\n", "RestartSteps"},
		{Unit{Runtime: "krun", Systemd: 254}, "\nRestartSec=5\nRestartSteps=5\nRestartMaxDelaySec=120\n", "RestartSec=30"},
		{Unit{Runtime: "krun"}, "\nPodmanArgs=--stop-timeout=60\n", "%!"},
		{Unit{Runtime: "krun", StopSeconds: 7}, "\nTimeoutStopSec=22\n", "timeout=60"},
		{Unit{Runtime: "krun-sim"}, "\nRestart=on-failure\n", "cannot see"},
		{Unit{Runtime: "/opt/krun-sim"}, "\nRestartPreventExitStatus=77\n", "%!"},
		{Unit{Runtime: "krun"}, "\nRestartPreventExitStatus=77\n", "%!"}, // should libkrun ever carry one
		{Unit{Runtime: "krun"}, "/etc/containers/systemd/fraud.container", "~/."},
		{Unit{Runtime: "krun", User: true}, "# Install as ~/.config/containers/systemd/fraud.container", "network-online"},
		{Unit{Runtime: "krun", User: true}, "\nWantedBy=default.target\n", "SystemCallFilter"},
	} {
		c.unit.Image = "registry.example/shop/fraud:1.2@sha256:0"
		text, err := c.unit.Render()
		if err != nil || !strings.Contains(text, c.has) || strings.Contains(text, c.lack) || !strings.Contains(text, "ContainerName=fraud\n") {
			t.Errorf("%+v: expected %q and no %q (%v) in\n%s", c.unit, c.has, c.lack, err, text)
		}
	}
}

// TestService has all that Quadlet cannot.
func TestService(t *testing.T) {
	for _, c := range []struct {
		unit      Unit
		has, lack string
	}{
		{Unit{}, "\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/ccrun run \\\n    --name fraud \\\n    --resume \\\n    --runtime krun \\\n", "%!"},
		{Unit{}, " \\\n    registry.example/shop/fraud:1.2@sha256:0\n", "--network"},
		{Unit{}, "\nRestartPreventExitStatus=77\n", "LOST"},
		{Unit{}, "\nRestart=on-failure\nRestartSec=30\n", "RestartSteps"},
		{Unit{Systemd: 257, Restart: "always"}, "\nRestart=always\n# From", "RestartSec=30"},
		{Unit{}, "\nStartLimitIntervalSec=0\n", "StartLimitBurst"},
		{Unit{}, "\nTimeoutStartSec=infinity\n", "15min"},
		{Unit{}, "\nExecStopPost=-/usr/bin/podman stop --ignore fraud\nKillMode=mixed\n", "--rm"},
		{Unit{StopSeconds: 5}, " --stop-timeout 5 \\\n", "60"},
		{Unit{StopSeconds: 5}, "\nTimeoutStopSec=20\n", "%!"},
		{Unit{Publish: []string{"80:80", "127.0.0.1:81:81/tcp"}, Network: "host"}, "--network host \\\n    --publish 80:80 \\\n    --publish 127.0.0.1:81:81/tcp \\\n", "%!"},
		{Unit{}, "\nWantedBy=multi-user.target\n", "~/."},
		{Unit{}, "\nAfter=network-online.target multi-user.target\n", "default.target"},
		{Unit{User: true}, "\nAfter=default.target\n", "multi-user"},
		{Unit{User: true}, "\nWantedBy=default.target\n", "network-online"},
		{Unit{User: true}, "# Install as ~/.config/systemd/user/fraud.service", "SystemCall"},
	} {
		c.unit.Image, c.unit.Runtime, c.unit.Ccrun, c.unit.Podman = "registry.example/shop/fraud:1.2@sha256:0", "krun", "/usr/bin/ccrun", "/usr/bin/podman"
		text, err := c.unit.RenderService()
		if err != nil || !strings.Contains(text, c.has) || strings.Contains(text, c.lack) {
			t.Errorf("%+v: expected %q and no %q (%v) in\n%s", c.unit, c.has, c.lack, err, text)
		}
	}
}

// TestUnitRefuses what would be another line, argument or specifier of a unit.
func TestUnitRefuses(t *testing.T) {
	good := Unit{Image: "localhost/a", Runtime: "krun", Ccrun: "/c", Podman: "/p"}
	for name, spoil := range map[string]func(*Unit){
		"no image":      func(u *Unit) { u.Image = "" },
		"no runtime":    func(u *Unit) { u.Runtime = "" },
		"specifier":     func(u *Unit) { u.Image = "a%b" },
		"variable":      func(u *Unit) { u.Network = "$X" },
		"second line":   func(u *Unit) { u.Publish = []string{"1:2\nExecStart=/bin/sh"} },
		"option":        func(u *Unit) { u.Image = "--privileged" },
		"two words":     func(u *Unit) { u.Runtime = "krun x" },
		"name":          func(u *Unit) { u.Name = "a/b" },
		"banana":        func(u *Unit) { u.Restart = "banana" },
		"negative stop": func(u *Unit) { u.StopSeconds = -1 },
		"endless stop":  func(u *Unit) { u.StopSeconds = maxStop + 1 },
		"path":          func(u *Unit) { u.Ccrun = "/c d" },
	} {
		u := good
		spoil(&u)
		if text, err := u.Render(); err == nil {
			t.Errorf("%s: rendered\n%s", name, text)
		}
		if text, err := u.RenderService(); err == nil {
			t.Errorf("%s: rendered\n%s", name, text)
		}
	}
	good.Podman = "podman"
	if _, err := good.RenderService(); err == nil {
		t.Error("a service without the path of podman")
	}
}

func TestParseSystemdVersion(t *testing.T) {
	for out, want := range map[string]int{
		"systemd 252 (252.39-1~deb12u2)\n+PAM": 252, "systemd 257 (257.9)": 257, "systemd 256~rc1 (x)": 256,
		"": 0, "systemd": 0, "OpenRC 254": 0, "systemd 9999999999": 0,
	} {
		if got := ParseSystemdVersion(out); got != want {
			t.Errorf("%q: %d, expected %d", out, got, want)
		}
	}
}
