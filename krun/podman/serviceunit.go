package podman

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ccrun/ccrun/krun"
)

// RenderService checks u and returns it as a service of `ccrun run`, which sees
// what Quadlet cannot: when the workload runs, what it waits for, and how it
// ended. It needs no particular version of Podman.
func (u Unit) RenderService() (string, error) {
	if err := u.check(); err != nil {
		return "", err
	}
	if !filepath.IsAbs(u.Ccrun) || !filepath.IsAbs(u.Podman) {
		return "", errors.New("a service needs the absolute paths of ccrun and podman")
	}
	if u.Restart == "" {
		u.Restart = "on-failure"
	}
	dir, target := "systemd/system/", "multi-user.target"
	if u.User {
		dir, target = "systemd/user/", "default.target"
	}
	var b strings.Builder
	b.WriteString(u.head("ccrun quadlet --service", dir+u.Name+".service"))
	fmt.Fprintf(&b, "# %s enable --now --no-block %s\n", u.systemctl(), u.Name)
	fmt.Fprintf(&b, serviceNotes, u.Name, krun.StatusDenied)
	fmt.Fprintf(&b, "\n[Unit]\nDescription=Confidential workload %s\n# After %s, or that would wait for the key server, too.\n%s# However long a server or the network is away.\nStartLimitIntervalSec=0\n",
		u.Name, target, u.online(target))
	fmt.Fprintf(&b, serviceBody, strings.Join(u.command(), " \\\n    "), u.Podman, u.Name)
	b.WriteString(u.again(u.Restart) + u.times() + u.contained() + "\n[Install]\nWantedBy=" + target + "\n")
	return b.String(), nil
}

// command is ExecStart=.
func (u *Unit) command() []string {
	list := []string{u.Ccrun + " run", "--name " + u.Name, "--resume", "--runtime " + u.Runtime, "--pull " + u.Pull,
		fmt.Sprintf("--stop-timeout %d", u.StopSeconds)}
	if u.Network != "" {
		list = append(list, "--network "+u.Network)
	}
	for _, p := range u.Publish {
		list = append(list, "--publish "+p)
	}
	return append(list, u.Image)
}

const serviceNotes = `#
# "active" means that the workload runs; until then systemctl status %[1]s says what
# it waits for. Status %[2]d, a refused key, ends it for good: ccrun explain has why.
# What the workload wrote is kept until its image or these flags change.
`

const serviceBody = `
[Service]
Type=notify
NotifyAccess=main
ExecStart=%[1]s
# The VM is Podman's, and would go on if ccrun were killed.
ExecStopPost=-%[2]s stop --ignore %[3]s
KillMode=mixed
# Stopped before the workload ran.
SuccessExitStatus=143
`
