package podman

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/ccrun/ccrun/krun"
)

// Unit is a Quadlet .container unit for a workload image.
type Unit struct {
	Image   string
	Name    string   // container and service name; empty: from Image
	Runtime string   // as `podman --runtime`
	Network string   // as Quadlet's Network=
	Publish []string // as Quadlet's PublishPort=
	Pull    string   // as Quadlet's Pull=; empty: missing
	Restart string   // as systemd's Restart=; empty: whatever looks like a failure
}

var (
	unitValue = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_.,:/@=+\[\]-]*$`)
	unitName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

// Render checks u and returns the unit. Quadlet has no Runtime key; the
// runtime goes through GlobalArgs (Podman 4.8 and later).
func (u Unit) Render() (string, error) {
	if u.Image == "" || u.Runtime == "" {
		return "", errors.New("a unit needs an image and a runtime")
	}
	u.setDefaults()
	values := append([]string{u.Image, u.Runtime, u.Network, u.Pull, u.Restart}, u.Publish...)
	for _, v := range values {
		if v != "" && !unitValue.MatchString(v) {
			return "", fmt.Errorf("%q cannot stand in a systemd unit", v)
		}
	}
	if !unitName.MatchString(u.Name) {
		return "", fmt.Errorf("unit name %q: expected letters, digits, '.', '_', '-'", u.Name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, unitHead, u.Image, u.Name)
	if !isSimulator(u.Runtime) {
		fmt.Fprintf(&b, unseen, u.Name, krun.StatusLine(krun.StatusDenied))
	}
	fmt.Fprintf(&b, unitBody, u.Image, u.Name, u.Runtime, u.Pull)
	if u.Network != "" {
		fmt.Fprintf(&b, "Network=%s\n", u.Network)
	}
	for _, p := range u.Publish {
		fmt.Fprintf(&b, "PublishPort=%s\n", p)
	}
	fmt.Fprintf(&b, unitTail, u.Restart)
	if isSimulator(u.Runtime) {
		fmt.Fprintf(&b, deniedIsFinal, krun.StatusDenied)
	}
	b.WriteString(unitInstall)
	return b.String(), nil
}

func (u *Unit) setDefaults() {
	if u.Name == "" {
		u.Name = nameOf(u.Image)
	}
	if u.Pull == "" {
		u.Pull = "missing"
	}
	if u.Restart == "" && isSimulator(u.Runtime) {
		u.Restart = "on-failure"
	}
	if u.Restart == "" {
		u.Restart = "always" // every end looks like a success
	}
}

// nameOf is the last part of an image name without tag and digest.
func nameOf(image string) string {
	n, _, _ := strings.Cut(image, "@")
	n = path.Base(n)
	n, _, _ = strings.Cut(n, ":")
	return n
}

const unitHead = `# Confidential workload %[1]s, written by ccrun quadlet.
# Install as /etc/containers/systemd/%[2]s.container (or
# ~/.config/containers/systemd/), then: systemctl daemon-reload && systemctl start %[2]s
`

// unseen is what a unit's owner must know under libkrun for TEEs.
const unseen = `#
# What Podman and systemd cannot see of this VM:
# - its exit status. They see 0, also when the server refused the key. The last
#   line has it: journalctl -u %[1]s; "%[2]s" is a refusal.
#   So nothing is taken for success: the unit starts it again, without limit.
# - whether it is ready: the unit is active as soon as the VM is started.
# A job that runs once belongs into ccrun run, which carries the status.
`

const unitBody = `[Unit]
Description=Confidential workload %[2]s
Wants=network-online.target
After=network-online.target
# However long a server or the network is away.
StartLimitIntervalSec=0

[Container]
Image=%[1]s
ContainerName=%[2]s
# Quadlet has no key for the OCI runtime.
GlobalArgs=--runtime=%[3]s
Pull=%[4]s
`

const unitTail = `
[Service]
Restart=%s
RestartSec=30
# Room for the first pull of an encrypted image.
TimeoutStartSec=15min
TimeoutStopSec=30
`

const deniedIsFinal = `# The server refused the key, and will again.
RestartPreventExitStatus=%d
`

const unitInstall = `
[Install]
WantedBy=multi-user.target default.target
`
