package guest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a workload: those of Podman's default profile, under the
// capabilities that the workload has, less what a container with a kernel of
// its own needs even less. What is in no list is refused as the profile says,
// so that a call which a later kernel brings is refused before anybody knows of
// it. Nearly all that is refused needs a capability the workload lacks, too;
// for the key rings, io_uring and others the filter is the only barrier.

// A verdict is what the filter does with a call.
type verdict uint32

const (
	unknown = verdict(unix.SECCOMP_RET_ERRNO) | verdict(unix.ENOSYS) // the profile's default
	refuse  = verdict(unix.SECCOMP_RET_ERRNO) | verdict(unix.EPERM)
	allow   = verdict(unix.SECCOMP_RET_ALLOW)
)

// A span is system calls by their numbers, the last one included.
type span struct{ first, last uint32 }

// forbidden are calls that the profile allows, or leaves to capabilities, and
// no workload gets: EPERM.
func forbidden() []uint32 {
	return []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
		unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_SETNS,
		unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_FANOTIFY_INIT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_CREATE_MODULE,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_LOOKUP_DCOOKIE,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
		unix.SYS_SYSLOG, unix.SYS_USELIB, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_NFSSERVCTL,
	}
}

// forbidden32 are the same calls' numbers for 32-bit programs
// (arch/x86/entry/syscalls/syscall_32.tbl), and what only those have.
func forbidden32() []uint32 {
	return []uint32{
		21, 22, 52, 217, 429, 428, 467, // mount, umount, umount2, pivot_root, move_mount, open_tree, open_tree_attr
		430, 431, 432, 433, 442, 346, // fsopen, fsconfig, fsmount, fspick, mount_setattr, setns
		457, 458, 338, 341, 342, // statmount, listmount, fanotify_init, name_to_handle_at, open_by_handle_at
		283, 88, 87, 115, // kexec_load, reboot, swapon, swapoff
		128, 350, 129, 127, // init_module, finit_module, delete_module, create_module
		357, 336, 374, 253, // bpf, perf_event_open, userfaultfd, lookup_dcookie
		286, 287, 288, // add_key, request_key, keyctl
		425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register
		347, 348, 440, 438, 349, // process_vm_readv, process_vm_writev, process_madvise, pidfd_getfd, kcmp
		110, 101, 123, 51, 131, 443, 103, 86, // iopl, ioperm, modify_ldt, acct, quotactl, quotactl_fd, syslog, uselib
		79, 25, 264, 404, 169, // settimeofday, stime, clock_settime, clock_settime64, nfsservctl
		113, 166, // vm86old, vm86
	}
}

// A condition decides a call by one of its arguments.
type condition struct {
	number uint32
	block  []unix.SockFilter
}

// conditions are those of the 64-bit calls; conditions32 below.
func conditions() []condition {
	return []condition{
		{unix.SYS_MKNOD, noDevice(1)}, {unix.SYS_MKNODAT, noDevice(2)},
		{unix.SYS_PERSONALITY, onePersonality()}, {unix.SYS_SOCKET, noAudit()},
	}
}

func conditions32() []condition {
	return []condition{{14, noDevice(1)}, {297, noDevice(2)}, {136, onePersonality()}, {359, noAudit()}}
}

// noDevice refuses to make device nodes, whatever capability the caller has: a
// report device that the kernel does not give up is no nearer by its number.
func noDevice(mode int) []unix.SockFilter {
	return []unix.SockFilter{
		loadArgument(mode),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: unix.S_IFMT},
		jumpEqual(unix.S_IFCHR, 1, 0),
		jumpEqual(unix.S_IFBLK, 0, 1),
		ret(refuse),
		ret(allow),
	}
}

// onePersonality allows the profile's: Linux and its 32-bit kind, each with
// UNAME26, and asking.
func onePersonality() []unix.SockFilter {
	block := []unix.SockFilter{loadArgument(0)}
	values := personalities()
	for i, v := range values {
		block = append(block, jumpEqual(v, uint8(len(values)-i), 0))
	}
	return append(block, ret(unknown), ret(allow))
}

// noAudit refuses NETLINK_AUDIT as the profile does, by EINVAL: programs then go
// on without.
func noAudit() []unix.SockFilter {
	return []unix.SockFilter{
		loadArgument(0),
		jumpEqual(unix.AF_NETLINK, 0, 2),
		loadArgument(2),
		jumpEqual(unix.NETLINK_AUDIT, 1, 0),
		ret(allow),
		ret(verdict(unix.SECCOMP_RET_ERRNO) | verdict(unix.EINVAL)),
	}
}

const (
	auditArchX8664 = 0xc000003e
	auditArchI386  = 0x40000003
	x32Bit         = 0x40000000
	// Offsets in struct seccomp_data. Of an argument the lower half is at its own.
	seccompNumber    = 0
	seccompArch      = 4
	seccompArguments = 16
)

func loadWord(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// loadArgument loads the lower half of an argument. The kernel takes no more of
// those that conditions look at.
func loadArgument(i int) unix.SockFilter { return loadWord(seccompArguments + 8*uint32(i)) }

// filterProgram judges every call. Those of the x32 ABI, whose numbers would
// dodge the lists, do not exist; those of an unknown architecture kill the
// process.
func filterProgram() []unix.SockFilter {
	wide := filterBlock(verdicts(profileAllows(), profileDenies(), forbidden()), conditions())
	narrow := filterBlock(verdicts(profileAllows32(), profileDenies32(), forbidden32()), conditions32())
	program := []unix.SockFilter{
		loadWord(seccompArch),
		jumpEqual(auditArchI386, 0, 1),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(wide)) + 2},
		jumpEqual(auditArchX8664, 1, 0),
		ret(verdict(unix.SECCOMP_RET_KILL_PROCESS)),
	}
	return append(append(program, wide...), narrow...)
}

// verdicts is what becomes of each number that a list has.
func verdicts(allows, denies []span, never []uint32) []verdict {
	all := make([]verdict, 1024)
	for i := range all {
		all[i] = unknown
	}
	fill := func(list []span, v verdict) {
		for _, s := range list {
			for n := s.first; n <= s.last; n++ {
				all[n] = v
			}
		}
	}
	fill(allows, allow)
	fill(denies, refuse)
	for _, n := range never {
		all[n] = refuse
	}
	return all
}

// filterBlock decides by the number: conditions first, then one comparison for
// each row of calls with one verdict. x32 is beyond the last of them.
func filterBlock(all []verdict, special []condition) []unix.SockFilter {
	block := []unix.SockFilter{loadWord(seccompNumber)}
	for _, c := range special {
		block = append(block, jumpEqual(c.number, 0, uint8(len(c.block))))
		block = append(block, c.block...)
	}
	for n, v := range all[:len(all)-1] {
		if all[n+1] != v {
			block = append(block, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: uint32(n), Jt: 1}, ret(v))
		}
	}
	return append(block, ret(unknown))
}

func jumpEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func ret(v verdict) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(v)}
}

// installFilter puts the filter on the calling thread, which still has
// CAP_SYS_ADMIN, so that set-user-ID programs keep working behind it.
func installFilter() error {
	program := filterProgram()
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("installing the system call filter: %w", err)
	}
	return nil
}
