package podman

import (
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/krun"
)

// Render checks u and returns it as a Quadlet .container unit. Quadlet has no
// Runtime key; the runtime goes through GlobalArgs (Podman 4.8 and later).
func (u Unit) Render() (string, error) {
	if err := u.check(); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(u.head("ccrun quadlet", "containers/systemd/"+u.Name+".container"))
	fmt.Fprintf(&b, "# %s start %s\n", u.systemctl(), u.Name)
	b.WriteString(stateIsLost)
	if !isSimulator(u.Runtime) {
		fmt.Fprintf(&b, unseen, u.Name, krun.StatusLine(krun.StatusDenied), krun.StartedLine)
	}
	fmt.Fprintf(&b, "\n[Unit]\nDescription=Confidential workload %s\n%s# However long a server or the network is away.\nStartLimitIntervalSec=0\n", u.Name, u.online())
	fmt.Fprintf(&b, unitContainer, u.Image, u.Name, u.Runtime, u.Pull, u.StopSeconds)
	if u.Network != "" {
		fmt.Fprintf(&b, "Network=%s\n", u.Network)
	}
	for _, p := range u.Publish {
		fmt.Fprintf(&b, "PublishPort=%s\n", p)
	}
	b.WriteString("\n[Service]\n" + u.again(u.restartOfQuadlet()) + u.times() + u.contained())
	if u.User {
		b.WriteString("\n[Install]\nWantedBy=default.target\n")
	} else {
		b.WriteString("\n[Install]\nWantedBy=multi-user.target default.target\n")
	}
	return b.String(), nil
}

func (u *Unit) systemctl() string {
	if u.User {
		return "systemctl --user"
	}
	return "systemctl"
}

// restartOfQuadlet: under libkrun every end looks like a success.
func (u *Unit) restartOfQuadlet() string {
	switch {
	case u.Restart != "":
		return u.Restart
	case isSimulator(u.Runtime):
		return "on-failure"
	}
	return "always"
}

const stateIsLost = `#
# WHAT THE WORKLOAD WRITES TO ITS ROOT IS LOST AT EACH STOP AND RESTART: Quadlet
# removes the container (--rm). Volumes (ccrun build --volume) stay. A unit of
# ccrun quadlet --service keeps the container, too.
`

// unseen is what a unit's owner must know under libkrun for TEEs.
const unseen = `#
# What Podman and systemd cannot see of this VM, unless its image was built with
# --vmm qemu, whose exit status they see:
# - its exit status. They see 0, also when the server refused the key. The last
#   line has it: journalctl -u %[1]s; "%[2]s" is a refusal.
#   So nothing is taken for success: the unit starts it again, without limit.
# - whether it is ready: the unit is active as soon as the VM is started. When the
#   workload runs, the journal has "%[3]s".
# - what it waits for: the journal has that, too.
# A unit of ccrun quadlet --service sees all three, and stops when refused.
`

const unitContainer = `
[Container]
Image=%[1]s
ContainerName=%[2]s
# Quadlet has no key for the OCI runtime, and none for the stop time before Podman 5.
GlobalArgs=--runtime=%[3]s
Pull=%[4]s
PodmanArgs=--stop-timeout=%[5]d
`
