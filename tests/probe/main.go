// Command probe is a workload that tries what a workload must not be able to
// do. Each try is stopped by one barrier alone: what lacks a capability anyway
// would not show that the barrier is there. It prints a line for each, "no: NAME"
// or "YES: NAME: WHY", and "done". After the word service it first asks the
// service of its guest for the paths that follow.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "service" {
		askService(os.Args[2:])
	}
	for _, list := range [][]try{calls(), devices(), masks(), readOnly(), namespaces()} {
		for _, p := range list {
			if err := p.run(); err != nil {
				fmt.Printf("YES: %s: %v\n", p.name, err)
			} else {
				fmt.Printf("no: %s\n", p.name)
			}
		}
	}
	fmt.Println("done")
}

// A try returns an error if it was not stopped by its barrier.
type try struct {
	name string
	run  func() error
}

// buffer does not move.
var buffer [4096]byte

// calls are those that work without any capability, if the filter is not there.
func calls() []try {
	at, used := uintptr(unsafe.Pointer(&buffer[0])), 3072
	text := func(s string) uintptr { // which stays in the buffer
		n := copy(buffer[used:], s)
		used += n + 1
		return at + uintptr(used-n-1)
	}
	pid := uintptr(os.Getpid())
	here := ^uintptr(99) // AT_FDCWD
	list := []try{
		call("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, at),
		call("add_key", unix.SYS_ADD_KEY, text("user"), text("x"), text("y"), 1, ^uintptr(2)),
		call("keyctl", unix.SYS_KEYCTL, 0, ^uintptr(2), 1),
		call("process_vm_readv", unix.SYS_PROCESS_VM_READV, pid, at, 0, at, 0, 0),
		call("kcmp", unix.SYS_KCMP, pid, pid, 0, 0, 0),
		call("modify_ldt", unix.SYS_MODIFY_LDT, 0, at, 16),
		call("open_tree", unix.SYS_OPEN_TREE, here, text("/"), 0),
		call("name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, here, text("/"), at, at+2048, 0),
	}
	for name, number := range map[string]uint32{"add_key": 286, "keyctl": 288, "io_uring_setup": 425, "modify_ldt": 123, "open_tree": 428} {
		list = append(list, try{"32-bit " + name, func() error { return oldCall(number) }})
	}
	return append(list, try{"system call filter", func() error {
		mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
		if err == nil && mode != 2 {
			err = fmt.Errorf("mode %d", mode)
		}
		return err
	}})
}

// oldCall makes a call of 32-bit programs. A kernel without them has no gate for
// it: the instruction faults.
func oldCall(number uint32) error {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { _ = recover() }()
	if got := int80(number, 0, 0, 0, 0, 0); got != -int32(unix.EPERM) {
		return fmt.Errorf("returns %d, not EPERM", got)
	}
	return nil
}

func call(name string, number uintptr, a ...uintptr) try {
	return try{name, func() error {
		var all [6]uintptr
		copy(all[:], a)
		if _, _, errno := unix.Syscall6(number, all[0], all[1], all[2], all[3], all[4], all[5]); errno != unix.EPERM {
			return fmt.Errorf("%v, not EPERM", errno)
		}
		return nil
	}}
}

// int80 is a 32-bit system call.
func int80(number, a, b, c, d, e uint32) int32

// devices are nodes that the image ships, of devices that anybody may open.
func devices() []try {
	var list []try
	for _, path := range []string{"/devices/zero", "/devices/null"} {
		list = append(list, try{path, func() error {
			if _, err := os.Open(path); !errors.Is(err, unix.EACCES) {
				return fmt.Errorf("opening it: %v, not EACCES", err)
			}
			return nil
		}})
	}
	return list
}

// masks must be there, where the kernel has the path: that something else stops
// who reads it is not enough.
func masks() []try {
	var list []try
	for _, path := range []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/latency_stats", "/proc/timer_list",
		"/proc/sched_debug", "/proc/scsi", "/proc/iomem", "/proc/ioports", "/proc/kallsyms",
		"/sys/firmware", "/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/class/virtio-ports", "/sys/kernel/config",
		"/sys/devices/virtual/misc/sev-guest", "/sys/devices/virtual/misc/tdx_guest", "/sys/bus/platform/drivers/sev-guest",
	} {
		list = append(list, try{path, func() error { return empty(path) }})
	}
	return list
}

func empty(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("not masked, but for %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		names, more := f.Readdirnames(1)
		if err != nil || len(names) > 0 || more != io.EOF {
			return fmt.Errorf("it has %q: %v", names, errors.Join(err, more))
		}
		return nil
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("it can be read: %d bytes, %v", n, err)
	}
	return nil
}

// readOnly are mounts of their own, which no capability gives way to.
func readOnly() []try {
	var list []try
	for _, path := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"} {
		list = append(list, try{path + " writable", func() error {
			var st unix.Statfs_t
			err := unix.Statfs(path, &st)
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			if err == nil && st.Flags&unix.ST_RDONLY == 0 {
				err = errors.New("not mounted read-only")
			}
			return err
		}})
	}
	return list
}

func namespaces() []try {
	return []try{{"processes of the agent", func() error {
		who, err := os.Readlink("/proc/1/exe")
		if err == nil && who != "/bin/busybox" && who != "/bin/probe" {
			err = fmt.Errorf("process 1 is %s", who)
		}
		return err
	}}}
}
