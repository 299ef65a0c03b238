package podman

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/krun"
)

// Unit is what a systemd unit for a workload image says, Quadlet's or one of
// `ccrun run`.
type Unit struct {
	Image       string
	Name        string   // container and service name; empty: from Image
	Runtime     string   // as `podman --runtime`
	Network     string   // as Quadlet's Network=
	Publish     []string // as Quadlet's PublishPort=
	Pull        string   // as Quadlet's Pull=; empty: missing
	Restart     string   // as systemd's Restart=; empty: whatever looks like a failure
	User        bool     // for a user's manager, not the system's
	StopSeconds int      // how long the workload has to stop; 0: defaultStop
	// Systemd is the version that is to read the unit; 0: not known, taken for old.
	Systemd int
	// Ccrun and Podman are the programs that a service calls.
	Ccrun, Podman string
}

const (
	// defaultStop is longer than Podman's 10 s: a guest closes its disk, too.
	defaultStop = 60
	maxStop     = 24 * 3600
	// stopSlack is what Podman takes to end a VM whose time is over.
	stopSlack = 15
	// stepsSince is the version of systemd that has RestartSteps=.
	stepsSince = 254
)

// restarts are the values of systemd's Restart=.
func restarts() []string {
	return []string{"no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"}
}

var (
	unitValue = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_.,:/@=+\[\]-]*$`)
	unitName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

// check fills in what was left out and refuses what no unit can say.
func (u *Unit) check() error {
	if u.Image == "" || u.Runtime == "" {
		return errors.New("a unit needs an image and a runtime")
	}
	u.Name = cmp.Or(u.Name, nameOf(u.Image))
	u.Pull = cmp.Or(u.Pull, "missing")
	u.StopSeconds = cmp.Or(u.StopSeconds, defaultStop)
	for _, v := range append([]string{u.Image, u.Runtime, u.Network, u.Pull, u.Ccrun, u.Podman}, u.Publish...) {
		if v != "" && !unitValue.MatchString(v) {
			return fmt.Errorf("%q cannot stand in a systemd unit", v)
		}
	}
	switch {
	case !unitName.MatchString(u.Name):
		return fmt.Errorf("unit name %q: expected letters, digits, '.', '_', '-'", u.Name)
	case u.Restart != "" && !slices.Contains(restarts(), u.Restart):
		return fmt.Errorf("restart %q: expected one of %s", u.Restart, strings.Join(restarts(), ", "))
	case u.StopSeconds < 1 || u.StopSeconds > maxStop:
		return fmt.Errorf("a stop time of %d s: expected 1 to %d", u.StopSeconds, maxStop)
	}
	return nil
}

// nameOf is the last part of an image name without tag and digest.
func nameOf(image string) string {
	n, _, _ := strings.Cut(image, "@")
	n = path.Base(n)
	n, _, _ = strings.Cut(n, ":")
	return n
}

// head are the lines on how to install the unit as file in dir.
func (u *Unit) head(command, file string) string {
	dir, ctl := "/etc/"+file, "systemctl"
	if u.User {
		dir, ctl = "~/.config/"+file, "systemctl --user"
	}
	lines := fmt.Sprintf("# Confidential workload %s, written by %s.\n# Install as %s, then: %s daemon-reload &&\n", u.Image, command, dir, ctl)
	if u.User {
		return lines + "# (once, to run without a login: loginctl enable-linger)\n"
	}
	return lines
}

// online waits for the network, of which a user's manager knows nothing. Neither
// needs to: a guest waits for its servers, and a pull that fails is tried again.
func (u *Unit) online(after ...string) string {
	wants := ""
	if !u.User {
		wants = "Wants=network-online.target\n"
		after = append([]string{"network-online.target"}, after...)
	}
	if len(after) == 0 {
		return wants
	}
	return wants + "After=" + strings.Join(after, " ") + "\n"
}

// again says when the unit is started again: always but after a refusal, ever
// more slowly where systemd can, and for as long as it takes.
func (u *Unit) again(restart string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Restart=%s\n", restart)
	if u.Systemd >= stepsSince {
		b.WriteString("# From 5 s to 2 min. A guest that waits for its key server needs no restart.\nRestartSec=5\nRestartSteps=5\nRestartMaxDelaySec=120\n")
	} else {
		b.WriteString("RestartSec=30\n")
	}
	fmt.Fprintf(&b, "# The server refused the key, and will again.\nRestartPreventExitStatus=%d\n", krun.StatusDenied)
	return b.String()
}

// times are the unit's limits: none for the start, which includes a pull and, of
// a service, the wait for the key server.
func (u *Unit) times() string {
	return fmt.Sprintf("TimeoutStartSec=infinity\n# %d s for the workload, then Podman ends the VM.\nTimeoutStopSec=%d\n", u.StopSeconds, u.StopSeconds+stopSlack)
}

// contained are restrictions under which Podman still works: none that makes a
// mount namespace, in which its mounts would be hidden from other podman commands,
// and none that keeps QEMU or crun from what they do. In a user's manager each
// would imply NoNewPrivileges=, with which newuidmap does not work.
func (u *Unit) contained() string {
	if u.User {
		return ""
	}
	return `# What Podman, its runtime and the VM never need.
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_TIME CAP_SYS_PACCT CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LEASE CAP_LINUX_IMMUTABLE CAP_SYS_TTY_CONFIG
LimitCORE=0
LockPersonality=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @obsolete @reboot @swap
SystemCallErrorNumber=EPERM
`
}

var systemdVersion = regexp.MustCompile(`^systemd (\d{1,5})\b`)

// ParseSystemdVersion reads what `systemctl --version` prints; 0 if that is
// something else.
func ParseSystemdVersion(out string) int {
	m := systemdVersion.FindStringSubmatch(out)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // digits, bounded by the pattern
	return n
}
