package guest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deniedCalls are refused to the workload with EPERM whatever its
// capabilities. Nearly all of them need one that it lacks; the filter is the
// second barrier, and the only one before the kernel's key rings and eBPF.
func deniedCalls() []uint32 {
	return []uint32{
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
		unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_SETNS,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_CREATE_MODULE,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_LOOKUP_DCOOKIE,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
		unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG, unix.SYS_USELIB,
		unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NFSSERVCTL,
	}
}

// deniedCalls32 are the same calls' numbers for 32-bit programs
// (arch/x86/entry/syscalls/syscall_32.tbl), and what only those have.
func deniedCalls32() []uint32 {
	return []uint32{
		21, 22, 52, 217, 429, 428, 430, 431, 432, 433, 442, 346, // mount, umount, umount2, pivot_root, ... setns
		283, 88, 87, 115, // kexec_load, reboot, swapon, swapoff
		128, 350, 129, 127, // init_module, finit_module, delete_module, create_module
		357, 336, 374, 253, // bpf, perf_event_open, userfaultfd, lookup_dcookie
		286, 287, 288, // add_key, request_key, keyctl
		110, 101, 51, 131, 103, 86, // iopl, ioperm, acct, quotactl, syslog, uselib
		79, 25, 264, 404, 342, 169, // settimeofday, stime, clock_settime, clock_settime64, open_by_handle_at, nfsservctl
		113, 166, // vm86old, vm86
	}
}

const (
	auditArchX8664 = 0xc000003e
	auditArchI386  = 0x40000003
	x32Bit         = 0x40000000
	// Offsets in struct seccomp_data.
	seccompNumber = 0
	seccompArch   = 4
)

// filterProgram allows every call but the denied ones. Calls of the x32 ABI,
// whose numbers would dodge the list, do not exist; those of an unknown
// architecture kill the process.
func filterProgram() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	wide := filterBlock(load(seccompNumber), deniedCalls(), true)
	narrow := filterBlock(load(seccompNumber), deniedCalls32(), false)
	program := []unix.SockFilter{load(seccompArch), jumpEqual(auditArchX8664, 0, uint8(len(wide)))}
	program = append(program, wide...)
	program = append(program, jumpEqual(auditArchI386, 0, uint8(len(narrow))))
	program = append(program, narrow...)
	return append(program, filterReturn(unix.SECCOMP_RET_KILL_PROCESS))
}

func filterBlock(load unix.SockFilter, denied []uint32, refuseX32 bool) []unix.SockFilter {
	block := []unix.SockFilter{load}
	if refuseX32 {
		block = append(block,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32Bit, Jf: 1},
			filterReturn(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	}
	for i, number := range denied {
		block = append(block, jumpEqual(number, uint8(len(denied)-i), 0)) // over the rest and the "allow"
	}
	return append(block, filterReturn(unix.SECCOMP_RET_ALLOW), filterReturn(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)))
}

func jumpEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func filterReturn(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
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
