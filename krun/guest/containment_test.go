package guest

import (
	"encoding/binary"
	"os"
	"path/filepath"
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
func runFilter(t *testing.T, arch, number uint32) uint32 {
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
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestFilter(t *testing.T) {
	const (
		allow = uint32(unix.SECCOMP_RET_ALLOW)
		eperm = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	)
	denied := map[uint32]bool{}
	for _, n := range deniedCalls() {
		denied[n] = true
	}
	denied32 := map[uint32]bool{}
	for _, n := range deniedCalls32() {
		denied32[n] = true
	}
	if len(denied) != len(deniedCalls()) || len(denied32) != len(deniedCalls32()) {
		t.Error("a call is listed twice")
	}
	for n := range uint32(600) {
		want, want32 := allow, allow
		if denied[n] {
			want = eperm
		}
		if denied32[n] {
			want32 = eperm
		}
		if got := runFilter(t, auditArchX8664, n); got != want {
			t.Errorf("call %d: %#x, expected %#x", n, got, want)
		}
		if got := runFilter(t, auditArchI386, n); got != want32 {
			t.Errorf("32-bit call %d: %#x, expected %#x", n, got, want32)
		}
	}
	for _, must := range []uint32{unix.SYS_MOUNT, unix.SYS_BPF, unix.SYS_KEYCTL, unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE} {
		if !denied[must] {
			t.Errorf("call %d is not denied", must)
		}
	}
	if got := runFilter(t, auditArchX8664, x32Bit|unix.SYS_MOUNT); got != uint32(unix.SECCOMP_RET_ERRNO)|uint32(unix.ENOSYS) {
		t.Errorf("x32 mount: %#x", got)
	}
	if got := runFilter(t, 0xc00000b7, 1); got != uint32(unix.SECCOMP_RET_KILL_PROCESS) {
		t.Errorf("aarch64 call: %#x", got)
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
