package guest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestDefaultCapabilities(t *testing.T) {
	// podman run --rm IMAGE grep CapEff /proc/self/status
	if got := capabilitySet(defaultCapabilities()); got != 0x800405fb {
		t.Errorf("capabilities %#x, expected %#x", got, 0x800405fb)
	}
}

// runFilter runs the filter in an independent BPF machine.
func runFilter(t *testing.T, arch, number uint32, args ...uint32) verdict {
	t.Helper()
	var raw []bpf.RawInstruction
	for _, i := range filterProgram() {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("an instruction of the filter is not BPF")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64) // struct seccomp_data; this machine loads big endian
	binary.BigEndian.PutUint32(data[0:], number)
	binary.BigEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], a)
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return verdict(got)
}

// TestFilter: each number gets what the lists say, on both architectures, and
// what is in none, of later kernels above all, does not exist.
func TestFilter(t *testing.T) {
	for _, x := range []struct {
		arch    uint32
		all     []verdict
		special []condition
	}{
		{auditArchX8664, verdicts(profileAllows(), profileDenies(), forbidden()), conditions()},
		{auditArchI386, verdicts(profileAllows32(), profileDenies32(), forbidden32()), conditions32()},
	} {
		for _, c := range x.special {
			x.all[c.number] = 0
		}
		for n, want := range x.all {
			if got := runFilter(t, x.arch, uint32(n)); want != 0 && got != want {
				t.Errorf("call %d of %#x: %#x, expected %#x", n, x.arch, got, want)
			}
		}
		for _, n := range []uint32{472, 1023, 1024, 1 << 20, 1<<32 - 1} {
			if got := runFilter(t, x.arch, n); got != unknown {
				t.Errorf("call %d of %#x: %#x, expected ENOSYS", n, x.arch, got)
			}
		}
	}
	if got := runFilter(t, auditArchX8664, x32Bit|unix.SYS_GETPID); got != unknown {
		t.Errorf("x32 getpid: %#x", got)
	}
	if got := runFilter(t, 0xc00000b7, 1); got != verdict(unix.SECCOMP_RET_KILL_PROCESS) {
		t.Errorf("aarch64 call: %#x", got)
	}
}

// TestFilterRefuses names what must be refused however the profile changes, by
// the numbers of both architectures.
func TestFilterRefuses(t *testing.T) {
	for name, n := range map[string][2]uint32{
		"mount": {165, 21}, "umount2": {166, 52}, "pivot_root": {155, 217}, "setns": {308, 346},
		"open_tree": {428, 428}, "move_mount": {429, 429}, "fsopen": {430, 430}, "fsconfig": {431, 431}, "fsmount": {432, 432},
		"fspick": {433, 433}, "mount_setattr": {442, 442}, "open_tree_attr": {467, 467}, "statmount": {457, 457}, "listmount": {458, 458},
		"io_uring_setup": {425, 425}, "io_uring_enter": {426, 426}, "io_uring_register": {427, 427},
		"process_vm_readv": {310, 347}, "process_vm_writev": {311, 348}, "pidfd_getfd": {438, 438}, "kcmp": {312, 349},
		"add_key": {248, 286}, "request_key": {249, 287}, "keyctl": {250, 288}, "bpf": {321, 357}, "perf_event_open": {298, 336},
		"userfaultfd": {323, 374}, "modify_ldt": {154, 123}, "iopl": {172, 110}, "ioperm": {173, 101}, "kexec_load": {246, 283},
		"init_module": {175, 128}, "finit_module": {313, 350}, "delete_module": {176, 129}, "reboot": {169, 88}, "syslog": {103, 103},
		"quotactl": {179, 131}, "quotactl_fd": {443, 443}, "open_by_handle_at": {304, 342}, "clock_settime": {227, 264}, "settimeofday": {164, 79},
		"acct": {163, 51}, "swapon": {167, 87}, "fanotify_init": {300, 338}, "vm86": {134, 166},
	} {
		for i, arch := range []uint32{auditArchX8664, auditArchI386} {
			if got := runFilter(t, arch, n[i]); got != refuse {
				t.Errorf("%s (%d of %#x): %#x, expected EPERM", name, n[i], arch, got)
			}
		}
	}
}

// TestFilterConditions: calls that are decided by an argument.
func TestFilterConditions(t *testing.T) {
	for _, x := range []struct {
		name   string
		n, n32 uint32
		args   []uint32
		want   verdict
	}{
		{"mknod of a character device", 133, 14, []uint32{0, unix.S_IFCHR | 0o600, 10<<8 | 124}, refuse},
		{"mknod of a block device", 133, 14, []uint32{0, unix.S_IFBLK}, refuse},
		{"mknod of a pipe", 133, 14, []uint32{0, unix.S_IFIFO | 0o666}, allow},
		{"mknod of a file", 133, 14, []uint32{0, 0o644}, allow},
		{"mknodat of a character device", 259, 297, []uint32{0, 0, unix.S_IFCHR}, refuse},
		{"mknodat of a block device", 259, 297, []uint32{0, 0, unix.S_IFBLK | 0o4777}, refuse},
		{"mknodat of a socket", 259, 297, []uint32{unix.S_IFCHR, unix.S_IFCHR, unix.S_IFSOCK}, allow},
		{"personality that asks", 135, 136, []uint32{0xffffffff}, allow},
		{"personality of Linux", 135, 136, []uint32{0}, allow},
		{"personality without address space randomisation", 135, 136, []uint32{0x40000}, unknown},
		{"socket for audit", 41, 359, []uint32{16, 3, 9}, verdict(unix.SECCOMP_RET_ERRNO) | verdict(unix.EINVAL)},
		{"socket for routes", 41, 359, []uint32{16, 3, 0}, allow},
		{"socket of TCP", 41, 359, []uint32{2, 1, 6}, allow},
		{"socket of another family with that number", 41, 359, []uint32{2, 3, 9}, allow},
	} {
		for arch, n := range map[uint32]uint32{auditArchX8664: x.n, auditArchI386: x.n32} {
			if got := runFilter(t, arch, n, x.args...); got != x.want {
				t.Errorf("%s (%d of %#x): %#x, expected %#x", x.name, n, arch, got, x.want)
			}
		}
	}
}

// TestFilterLoads: the kernel takes the program, and it does what the machine
// of these tests does. Where the test may make a device node (it has CAP_MKNOD),
// the filter alone keeps it from that. A thread that has it is not given back.
func TestFilterLoads(t *testing.T) {
	done, dir := make(chan error), t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	report := int(unix.Mkdev(10, 124))
	mayMake := unix.Mknod(before, unix.S_IFCHR|0o600, report) == nil
	if os.Geteuid() == 0 && !mayMake {
		t.Log("no CAP_MKNOD: the filter is not tried without it")
	}
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- err
			return
		}
		if err := installFilter(); err != nil {
			done <- err
			return
		}
		_, _, uring := unix.RawSyscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		_, _, later := unix.RawSyscall(1000, 0, 0, 0)
		_, _, pid := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		if uring != unix.EPERM || later != unix.ENOSYS || pid != 0 {
			done <- fmt.Errorf("io_uring_setup: %v, call 1000: %v, getpid: %v", uring, later, pid)
			return
		}
		if err := unix.Mknod(after, unix.S_IFCHR|0o600, report); mayMake && err != unix.EPERM {
			done <- fmt.Errorf("with CAP_MKNOD, mknod of the report device: %v", err)
			return
		}
		done <- unix.Mknod(filepath.Join(dir, "pipe"), unix.S_IFIFO|0o600, 0)
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(after); err == nil {
		t.Error("the report device's node is there")
	}
}

func TestContainerMounts(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		dev := -1
		for i, m := range containerMounts(readOnly) {
			switch m.fstype {
			case "devtmpfs", "configfs", "debugfs", "securityfs", "tracefs", "bpf", "efivarfs":
				t.Errorf("the workload gets %s", m)
			case "sysfs":
				if m.flags&unix.MS_RDONLY == 0 {
					t.Errorf("%s is writable", m)
				}
			}
			if m.target == "/dev" {
				dev = i
			}
			if m.flags&unix.MS_NODEV == 0 && m.target != "/dev" && m.fstype != "devpts" {
				t.Errorf("%s allows devices", m)
			}
			if m.flags&unix.MS_NOSUID == 0 {
				t.Errorf("%s allows set-user-ID", m)
			}
			if strings.HasPrefix(m.target, "/dev/") && dev < 0 {
				t.Errorf("%s before /dev", m)
			}
		}
	}
	for _, d := range defaultDevices() {
		switch {
		case d.major == 1 && (d.minor == 1 || d.minor == 4 || d.minor == 11): // mem, port, kmsg
			t.Errorf("the workload gets /dev/%s", d.name)
		case d.major != 1 && d.name != "tty":
			t.Errorf("the workload gets /dev/%s", d.name)
		}
	}
}

func TestSysctlsOnceOnlyComeLast(t *testing.T) {
	want := map[string]string{
		"/proc/sys/kernel/sysrq": "0", "/proc/sys/kernel/kexec_load_disabled": "1", "/proc/sys/kernel/modules_disabled": "1",
		"/proc/sys/kernel/dmesg_restrict": "1", "/proc/sys/kernel/kptr_restrict": "2", "/proc/sys/kernel/unprivileged_bpf_disabled": "1",
		"/proc/sys/user/max_user_namespaces": "0",
	}
	list := sysctls()
	for _, s := range append(earlySysctls(), list...) {
		if v, ok := want[s.path]; ok && v == s.value {
			delete(want, s.path)
		}
	}
	if len(want) != 0 {
		t.Errorf("not set: %v", want)
	}
	if last := list[len(list)-1].path; last != "/proc/sys/kernel/modules_disabled" {
		t.Errorf("last is %s", last)
	}
}

func TestSysctlApply(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "value")
	if err := (sysctl{path, "1"}).apply(); err != nil {
		t.Errorf("absent: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a setting was made up")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (sysctl{path, "1"}).apply(); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "1" {
		t.Errorf("holds %q", got)
	}
	if err := (sysctl{dir, "1"}).apply(); err == nil {
		t.Error("a refused setting is no error")
	}
	if err := (sysctl{"/dev/full", "1"}).apply(); err == nil {
		t.Error("a failed write is no error")
	}
}
