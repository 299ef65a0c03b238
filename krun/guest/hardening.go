package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/bounded"
)

// A sysctl is a value the kernel gets before the workload starts.
type sysctl struct{ path, value string }

// earlySysctls are set before any secret exists, whatever the kernel's command
// line says: they keep registers and memory from the console, which the host
// reads, and off files. Magic SysRq reaches the kernel from the host's end of
// the console, and dumps registers to it; an oops does so once, and must not go
// on half broken.
//
// With console log level 0 the kernel prints nothing on its consoles, and does
// not raise it for an oops or a panic either (console_verbose in
// kernel/printk/printk.c), as it would from every other level.
func earlySysctls() []sysctl {
	return []sysctl{
		{kernelLogLevel, "0"},
		{"/sys/module/printk/parameters/ignore_loglevel", "N"},
		{"/sys/module/printk/parameters/console_no_auto_verbose", "Y"},
		{"/proc/sys/kernel/panic_print", "0"},
		{"/proc/sys/kernel/sysrq", "0"},
		{"/proc/sys/kernel/panic_on_oops", "1"},
		{"/proc/sys/kernel/panic", "-1"}, // restart at once, which ends the VM
		{"/proc/sys/kernel/print-fatal-signals", "0"},
		{"/proc/sys/debug/exception-trace", "0"},
		{"/proc/sys/kernel/core_pattern", "core"}, // a file, not a program
		{"/proc/sys/fs/suid_dumpable", "0"},
	}
}

// SilenceKernel keeps the kernel from printing what it or a program of ours dies
// of. /proc and /sys must be mounted.
func SilenceKernel() error {
	if err := applyAll(earlySysctls()); err != nil {
		return err
	}
	return checkKernelSilent("/proc/sys/kernel")
}

const kernelLogLevel = "/proc/sys/kernel/printk"

// checkKernelSilent makes sure that nothing in dir, the kernel's settings, was
// left out because it is not where it should be.
func checkKernelSilent(dir string) error {
	for _, c := range []struct{ name, want string }{{"printk", "0"}, {"sysrq", "0"}, {"panic_on_oops", "1"}} {
		got, err := bounded.File(filepath.Join(dir, c.name), 256)
		if errors.Is(err, os.ErrNotExist) && c.name != "panic_on_oops" {
			if _, err := os.Stat(filepath.Join(dir, "ostype")); err == nil {
				continue // a kernel that was built without
			}
		}
		if err != nil {
			return fmt.Errorf("silencing the kernel: %w", err)
		}
		if f := strings.Fields(string(got)); len(f) == 0 || f[0] != c.want {
			return fmt.Errorf("silencing the kernel: %s is %q, expected %s", c.name, got, c.want)
		}
	}
	return nil
}

// sysctls close the ways from the workload, or from whoever breaks into it,
// into the kernel, which holds the disk's key. Those that only a boot can undo
// come last.
func sysctls() []sysctl {
	return []sysctl{
		{"/proc/sys/kernel/dmesg_restrict", "1"},
		{"/proc/sys/kernel/kptr_restrict", "2"},
		{"/proc/sys/kernel/perf_event_paranoid", "3"},
		{"/proc/sys/kernel/yama/ptrace_scope", "1"},
		{"/proc/sys/fs/protected_hardlinks", "1"},
		{"/proc/sys/fs/protected_symlinks", "1"},
		{"/proc/sys/user/max_user_namespaces", "0"},
		// As Podman does, so that ping works without CAP_NET_RAW.
		{"/proc/sys/net/ipv4/ping_group_range", "0\t0"},
		{"/proc/sys/kernel/unprivileged_bpf_disabled", "1"},
		{"/proc/sys/kernel/kexec_load_disabled", "1"},
		{"/proc/sys/kernel/modules_disabled", "1"},
	}
}

// lockDown takes away, for good, what only the boot needed, and looks whether it
// is gone. A setting that the kernel has but refuses ends the boot, and so does
// a way to a report that could have been closed.
func (b *boot) lockDown(context.Context) error {
	service := b.service != nil
	if err := giveUpReports(service); err != nil {
		return err
	}
	left, err := reportsLeft("/")
	if err != nil {
		return err
	}
	left = left.but(service)
	if err := left.refusal(); err != nil {
		return err
	}
	for _, what := range left.kernel {
		b.console.timing("the kernel keeps " + what)
	}
	return applyAll(sysctls())
}

func applyAll(list []sysctl) error {
	for _, s := range list {
		if err := s.apply(); err != nil {
			return err
		}
	}
	return nil
}

// apply skips what the kernel was built without, and reads back what it set.
func (s sysctl) apply() error {
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.value)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("setting %s to %q: %w", s.path, s.value, err)
	}
	b, err := bounded.File(s.path, 4<<10)
	got, want := strings.Fields(string(b)), strings.Fields(s.value) // printk shows more than is set
	if err == nil && !slices.Equal(got[:min(len(got), len(want))], want) {
		err = fmt.Errorf("%s is %q, expected %q", s.path, b, s.value)
	}
	return err
}
