package crun

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a monitor may do is the same for both runtimes, whatever Podman asks
// for: it opens devices and a disk that are its user's or everybody's, and
// listens on the workload's ports. Nothing else takes a capability, neither in
// QEMU nor in libkrun, whose TSI listens in the guest's place.

// Capabilities of podman's containers: all versions give the former, some the
// latter, without being asked.
const (
	podmansCapabilities = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
	oldCapabilities     = "AUDIT_WRITE MKNOD NET_RAW"
)

func isPodmans(bounding []string) bool {
	all, some := strings.Fields(podmansCapabilities), strings.Fields(podmansCapabilities+" "+oldCapabilities)
	for _, c := range bounding {
		c = strings.TrimPrefix(c, "CAP_")
		if !slices.Contains(some, c) {
			return false
		}
		all = slices.DeleteFunc(all, func(name string) bool { return name == c })
	}
	return len(all) == 0
}

func capabilities(m *Machine) []string {
	c := m.process().Capabilities
	return one(c != nil && !isPodmans(c.Bounding), "capabilities do not reach the workload: --cap-add, --cap-drop and --privileged have no effect inside the VM")
}

// anyProcess is given always: without any mention of capabilities Podman gives
// its own.
func anyProcess(m *Machine) []string { return one(m.Process != nil, "capabilities of the monitor") }

func dropCapabilities(m *Machine) error {
	const bind = "CAP_NET_BIND_SERVICE"
	var caps []string
	if c := m.process().Capabilities; c != nil && slices.Contains(c.Bounding, bind) {
		caps = []string{bind}
	}
	return m.Set(specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}, "process", "capabilities")
}

func noNewPrivileges(m *Machine) []string {
	return one(m.process().NoNewPrivileges, "no-new-privileges holds for the VM's monitor, not for the workload")
}

func newPrivileges(m *Machine) []string {
	return one(m.Process != nil && !m.process().NoNewPrivileges, "privileges of the monitor")
}

func confinement(m *Machine) []string {
	p := m.process()
	return one(m.linux().Seccomp != nil || p.SelinuxLabel != "" || p.ApparmorProfile != "", "confinement holds for the VM's monitor, not for the workload")
}

// podmansLimit is the least that Podman sets without being asked, of the two
// limits that it does set.
func podmansLimit(kind string) (least uint64, sets bool) {
	var resource int
	switch kind {
	case "RLIMIT_NOFILE":
		resource, least = unix.RLIMIT_NOFILE, 1<<20
	case "RLIMIT_NPROC":
		resource, least = unix.RLIMIT_NPROC, 1<<15 // pid_max of small machines
	default:
		return 0, false
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(resource, &own); err == nil {
		least = min(least, own.Max)
	}
	return least, true
}

// askedLimit says whether somebody chose the limit.
func askedLimit(l specs.POSIXRlimit) bool {
	least, sets := podmansLimit(l.Type)
	return !sets || l.Soft < least
}

func limits(m *Machine) []string {
	return one(slices.ContainsFunc(m.process().Rlimits, askedLimit), "limits of --ulimit do not reach the workload")
}

// dropLimits takes limits from the monitor that it may not be able to live with.
func dropLimits(m *Machine) error {
	return m.Set(slices.DeleteFunc(m.process().Rlimits, askedLimit), "process", "rlimits")
}
