package podman

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Unit is a Quadlet .container unit for a workload image.
type Unit struct {
	Image   string
	Name    string   // container and service name; empty: from Image
	Runtime string   // as `podman --runtime`
	Network string   // as Quadlet's Network=
	Publish []string // as Quadlet's PublishPort=
	Pull    string   // as Quadlet's Pull=; empty: missing
	Restart string   // as systemd's Restart=; empty: on-failure
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
	fmt.Fprintf(&b, unitHead, u.Image, u.Name, u.Image, u.Name, u.Runtime, u.Pull)
	if u.Network != "" {
		fmt.Fprintf(&b, "Network=%s\n", u.Network)
	}
	for _, p := range u.Publish {
		fmt.Fprintf(&b, "PublishPort=%s\n", p)
	}
	fmt.Fprintf(&b, unitTail, u.Restart)
	return b.String(), nil
}

func (u *Unit) setDefaults() {
	if u.Name == "" {
		u.Name = nameOf(u.Image)
	}
	if u.Pull == "" {
		u.Pull = "missing"
	}
	if u.Restart == "" {
		u.Restart = "on-failure"
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
[Unit]
Description=Confidential workload %[2]s
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=10min
StartLimitBurst=5

[Container]
Image=%[3]s
ContainerName=%[4]s
# Quadlet has no key for the OCI runtime.
GlobalArgs=--runtime=%[5]s
Pull=%[6]s
`

const unitTail = `
[Service]
Restart=%s
RestartSec=10
# Room for the first pull of an encrypted image.
TimeoutStartSec=15min
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target default.target
`
