package guest

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun/process"
)

// A resourceLimit is what Podman gives as root, where the kernel gives less.
type resourceLimit struct {
	resource int
	most     uint64
}

// resourceLimits: the kernel's 1024 open files are for programs that still use
// select, and it counts half the threads that fit into memory for one user: 1820
// with 512 MiB, too few for a server's workers, which mostly sleep.
func resourceLimits() []resourceLimit {
	return []resourceLimit{{unix.RLIMIT_NOFILE, 1 << 20}, {unix.RLIMIT_NPROC, 1 << 15}}
}

// lastCapability is probed, so that a newer kernel's capabilities go too.
const lastCapability = 63

// defaultCapabilities are Podman's for a container.
func defaultCapabilities() []uint {
	return []uint{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID,
		unix.CAP_KILL, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETFCAP, unix.CAP_SETGID,
		unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
	}
}

// capabilitySet packs capabilities as capset(2) wants them.
func capabilitySet(caps []uint) uint64 {
	var set uint64
	for _, c := range caps {
		set |= 1 << c
	}
	return set
}

// dropPrivileges makes the calling thread the workload's user, with Podman's
// default capabilities for root and none in effect for anyone else, behind
// the system call filter. The order matters: each step needs what a later
// one gives up. The user gets the streams, descriptors that become the workload's.
func dropPrivileges(who process.Credentials, streams ...int) error {
	for _, fd := range streams { // so that /dev/stdout opens for the user, too
		if err := unix.Fchown(fd, who.UID, who.GID); err != nil {
			return fmt.Errorf("giving the output to the user: %w", err)
		}
	}
	for _, l := range resourceLimits() {
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.most, Max: l.most}); err != nil {
			return fmt.Errorf("setting resource limit %d: %w", l.resource, err)
		}
	}
	return confine(who)
}

// confine is dropPrivileges without what it gives.
func confine(who process.Credentials) error {
	set := capabilitySet(defaultCapabilities())
	if err := boundCapabilities(set); err != nil {
		return err
	}
	if err := installFilter(); err != nil {
		return err
	}
	if err := setUser(who); err != nil {
		return err
	}
	if who.UID != 0 {
		set = 0
	}
	return setCapabilities(set)
}

// boundCapabilities limits what any program of the workload can ever gain.
// EINVAL is a capability that the running kernel does not know.
func boundCapabilities(set uint64) error {
	for c := range uint(lastCapability + 1) {
		if set&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

// setUser changes every thread, as Go's wrappers do; the execve keeps this one's.
func setUser(who process.Credentials) error {
	if err := syscall.Setgroups(who.Groups); err != nil {
		return fmt.Errorf("setting supplementary groups: %w", err)
	}
	if err := syscall.Setresgid(who.GID, who.GID, who.GID); err != nil {
		return fmt.Errorf("setting group %d: %w", who.GID, err)
	}
	if err := syscall.Setresuid(who.UID, who.UID, who.UID); err != nil {
		return fmt.Errorf("setting user %d: %w", who.UID, err)
	}
	return nil
}

// noCapabilities takes them from every thread of a program without cgo.
func noCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("setting capabilities: %w", errno)
	}
	return nil
}

// setCapabilities sets the effective and permitted sets; nothing is
// inheritable or ambient (CVE-2022-27649).
func setCapabilities(set uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	data[0].Effective, data[0].Permitted = uint32(set), uint32(set)
	data[1].Effective, data[1].Permitted = uint32(set>>32), uint32(set>>32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	return nil
}
