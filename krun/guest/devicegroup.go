package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The workload's control group has the devices of its /dev and no others,
// whatever capability a program gains and wherever a node of another comes
// from. It needs a kernel with control groups of version 2 and programs for
// them (CONFIG_CGROUP_BPF); where it has none, the other barriers are left.

// groupRoot is where the agent mounts control groups; the workload has them not.
const groupRoot = "/run/cgroup"

// openDeviceGroup makes the group and returns its directory: nil where the
// kernel cannot.
func openDeviceGroup() (*os.File, error) {
	program, err := loadDeviceProgram()
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("loading the device program: %w", err)
	}
	defer func() { _ = unix.Close(program) }()
	err = mount{"cgroup2", groupRoot, "cgroup2", noExec, ""}.do()
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(groupRoot, "workload")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := attachDeviceProgram(f, program); err != nil {
		return nil, errors.Join(fmt.Errorf("attaching the device program: %w", err), f.Close())
	}
	return f, nil
}

// A bpfInstruction is struct bpf_insn (Documentation/bpf/standardization/instruction-set.rst).
type bpfInstruction struct {
	code      uint8
	registers uint8 // destination, and source << 4
	offset    int16
	value     int32
}

// deviceProgram allows the devices of deviceRules. It gets struct
// bpf_cgroup_dev_ctx: access (its lower half is the type), major, minor.
func deviceProgram() []bpfInstruction {
	const (
		load, and, move, exit = 0x61, 0x57, 0xb7, 0x95 // ldxw, and, mov, exit
		ifEqual, ifNot        = 0x15, 0x55
		character             = 2 // BPF_DEVCG_DEV_CHAR
	)
	rules := deviceRules()
	program := []bpfInstruction{
		{load, 2 | 1<<4, 0, 0}, {and, 2, 0, 0xffff}, {load, 3 | 1<<4, 4, 0}, {load, 4 | 1<<4, 8, 0},
		{ifNot, 2, int16(2 * len(rules)), character},
	}
	for i, r := range rules {
		allowed := int16(2*(len(rules)-i-1) + 2) // over the other rules, and the refusal
		match := bpfInstruction{ifEqual, 4, allowed, int32(r.minor)}
		if r.any {
			match = bpfInstruction{ifEqual, 3, allowed, int32(r.major)}
		}
		program = append(program, bpfInstruction{ifNot, 3, 1, int32(r.major)}, match)
	}
	return append(program, bpfInstruction{move, 0, 0, 0}, bpfInstruction{exit, 0, 0, 0},
		bpfInstruction{move, 0, 0, 1}, bpfInstruction{exit, 0, 0, 0})
}

// A deviceRule is a character device, or all with its major number.
type deviceRule struct {
	major, minor uint32
	any          bool
}

// deviceRules are the workload's /dev, and pseudo-terminals.
func deviceRules() []deviceRule {
	rules := []deviceRule{{5, 2, false}, {136, 0, true}} // ptmx, pts
	for _, d := range defaultDevices() {
		rules = append(rules, deviceRule{d.major, d.minor, false})
	}
	return rules
}

// Numbers of bpf(2) (include/uapi/linux/bpf.h).
const (
	bpfProgramLoad   = 5
	bpfProgramAttach = 8
	bpfCgroupDevice  = 15 // BPF_PROG_TYPE_CGROUP_DEVICE
	bpfToDevices     = 6  // BPF_CGROUP_DEVICE
)

func loadDeviceProgram() (fd int, err error) {
	program, license := deviceProgram(), []byte("GPL\x00")
	attr := struct {
		kind, count       uint32
		program, license  uint64
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
		name              [16]byte
		device, attach    uint32
	}{
		kind: bpfCgroupDevice, count: uint32(len(program)), attach: bpfToDevices,
		program: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	r, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgramLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func attachDeviceProgram(group *os.File, program int) error {
	attr := struct{ target, program, kind, flags uint32 }{uint32(group.Fd()), uint32(program), bpfToDevices, 0}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgramAttach, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return nil
}

// checkDevicesRefused makes sure that this process is in such a group, in dir,
// where it may make device nodes otherwise.
func checkDevicesRefused(dir string) error {
	node := filepath.Join(dir, ".refused")
	err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 124)))
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	_ = os.Remove(node)
	return fmt.Errorf("making a device node in the workload's control group: %w, expected %w", err, unix.EPERM)
}
